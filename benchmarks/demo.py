"""`make demo` from nothing, and a second time: at most 4 minutes and 40 seconds on two cores.

Repeat with `python -m benchmarks demo`. The peer is the first run itself: the second does none of its work.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.limits import finish, verdict

LIMITS_S = {"first": 240.0, "second": 40.0}


def main() -> None:
    """Two demos in a home of their own."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    environment = {**os.environ, "ML_ASSETS_HOME": str(home)}
    command = [sys.executable, "-m", "ml_assets.cli"]
    try:
        taken = {}
        for name, limit in LIMITS_S.items():
            start = time.perf_counter()
            subprocess.run([*command, "demo"], env=environment, check=True, stdout=subprocess.DEVNULL)
            taken[name] = time.perf_counter() - start
            told = verdict(f"{name} demo", taken[name], limit)
            print(f"{name:<7}{taken[name]:7.1f} s  ({told} the limit of {limit:.0f} s)")
        print(f"second / first: {taken['second'] / taken['first']:.3f}")
    finally:
        subprocess.run([*command, "down"], env=environment, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
    finish()
