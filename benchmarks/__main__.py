"""Run benchmarks by name, or all of them: `python -m benchmarks [NAME ...]`."""

import importlib
import pkgutil
import sys
from pathlib import Path

from benchmarks.limits import finish


def main(names: list[str]) -> None:
    """Run each benchmark module's `main()`; every one of them prints its own table.

    Exit status 1 if one of them misses a limit.
    """
    folder = Path(__file__).parent
    known = [
        module.name
        for module in pkgutil.iter_modules([str(folder)])
        if module.name not in ("__main__", "limits")
    ]
    for name in names or known:
        if name not in known:
            sys.exit(f"There is no benchmark {name!r}: choose from {', '.join(known)}.")
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()
    finish()


if __name__ == "__main__":
    main(sys.argv[1:])
