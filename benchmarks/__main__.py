"""Run benchmarks by name, or all of them: `python -m benchmarks [NAME ...]`."""

import importlib
import pkgutil
import sys
from pathlib import Path


def main(names: list[str]) -> None:
    """Run each benchmark module's `main()`, which prints its own table and may return goals that it missed."""
    folder = Path(__file__).parent
    known = [module.name for module in pkgutil.iter_modules([str(folder)]) if module.name != "__main__"]
    missed: list[str] = []
    for name in names or known:
        if name not in known:
            sys.exit(f"There is no benchmark {name!r}: choose from {', '.join(known)}.")
        print(f"== {name}", flush=True)
        missed += importlib.import_module(f"benchmarks.{name}").main() or []
    if missed:
        sys.exit(f"Missed: {'; '.join(missed)}.")


if __name__ == "__main__":
    main(sys.argv[1:])
