"""`make demo` from nothing, and a second time: at most 4 minutes and 40 seconds on two cores.

Of the first, at most 90 seconds go into making the input: training, logging, serving and writing the files.

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
from ml_assets.demo import DemoReport, Manifest

LIMITS_S = {"first": 240.0, "second": 40.0}
INPUT_LIMIT_S = 90.0


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
            _print(name, taken[name], limit)
        _print("input", _input_seconds(home), INPUT_LIMIT_S)
        print(f"second / first: {taken['second'] / taken['first']:.3f}")
    finally:
        subprocess.run([*command, "down"], env=environment, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(home)


def _input_seconds(home: Path) -> float:
    """What the demo's manifest says of the phases of its days, and of nothing else of the first run."""
    manifest = Manifest.read(home)
    assert manifest is not None
    return sum(DemoReport.of(manifest, trained=True).seconds.values())


def _print(name: str, seconds: float, limit_s: float) -> None:
    told = verdict(f"{name} of the demo, s" if name == "input" else f"{name} demo, s", seconds, limit_s)
    print(f"{name:<7}{seconds:7.1f} s  ({told} the limit of {limit_s:.0f} s)")


if __name__ == "__main__":
    main()
    finish()
