"""How much longer our definitions take to load than `import dagster` alone: at most 1.0 s is allowed.

Repeat with `python -m benchmarks import_time`.
"""

import statistics
import subprocess
import sys
import time

from benchmarks.limits import finish, verdict

ROUNDS = 7
ALONE = "import dagster"
OURS = "from ml_assets.definitions import defs; defs().resolve_asset_graph()"
LIMIT_S = 1.0


def seconds(code: str) -> float:
    """Wall time of a fresh interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Interleave both, so that a busy machine slows both; print medians and their difference."""
    rounds = [(seconds(ALONE), seconds(OURS)) for _ in range(ROUNDS + 1)][1:]
    alone, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    told = verdict("import time", ours - alone, LIMIT_S)
    print(f"import dagster        {alone:6.2f} s")
    print(f"our definitions       {ours:6.2f} s  ({ours / alone:.2f} times)")
    print(f"difference            {ours - alone:6.2f} s  ({told} the limit of {LIMIT_S:.1f} s)")


if __name__ == "__main__":
    main()
    finish()
