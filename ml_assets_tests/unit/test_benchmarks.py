"""A benchmark that misses its limit says so by its exit status, and is not taken for another one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml_assets.settings import SQL_DIR

MEASURE = """
from benchmarks import import_time, limits
import_time.ROUNDS, import_time.OURS, import_time.ALONE = 1, "pass", "pass"
import_time.LIMIT_S = {limit}
import_time.main()
limits.finish()
"""


@pytest.mark.parametrize(("limit", "status", "told"), [("60", 0, "within"), ("-60", 1, "ABOVE")])
def test_a_missed_limit_is_exit_status_1(limit, status, told):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(limit=limit)],
        cwd=Path(SQL_DIR).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert told in done.stdout
    assert done.stderr.startswith("Missed: import time (") == bool(status)


def test_each_benchmark_has_its_own_memory_and_exit_status(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(Path(SQL_DIR).parent / "benchmarks" / name, folder)
    (folder / "big.py").write_text("held = bytearray(b'x') * (300 << 20)\n")
    (folder / "missing.py").write_text("import sys\nsys.exit('Missed: everything.')\n")
    (folder / "small.py").write_text(
        "import psutil, resource\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print('small' if peak * (1024 if psutil.LINUX else 1) < 200 << 20 else peak)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["== big", "== missing", "== small", "small"]
    assert done.stderr.splitlines() == ["Missed: everything.", "Missed a limit, or failed: missing."]
    assert done.returncode == 1
