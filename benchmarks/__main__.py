"""Run benchmarks by name, or all of them: `python -m benchmarks [NAME ...]`."""

import pkgutil
import subprocess
import sys
from pathlib import Path


def main(names: list[str]) -> None:
    """Run each benchmark module; every one of them prints its own table.

    Each runs in a process of its own: what one has loaded and held would count as the memory of the next, and of
    the processes that the next starts, too.

    Exit status 1 if one of them misses a limit or fails.
    """
    folder = Path(__file__).parent
    # The soak takes half an hour: `make soak`.
    known = [
        module.name
        for module in pkgutil.iter_modules([str(folder)])
        if module.name not in ("__main__", "limits", "soak")
    ]
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"There is no benchmark {unknown[0]!r}: choose from {', '.join(known)}.")
    failed = []
    for name in names or known:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"Missed a limit, or failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main(sys.argv[1:])
