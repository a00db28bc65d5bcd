"""A benchmark that misses its limit says so by its exit status."""

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
