"""What becomes of a command whose output nobody reads to its end."""

import os
import subprocess
import sys

MANY_LINES = """
from ml_assets.cli.command import told_in_words
told_in_words(lambda: print("line\\n" * 1_000_000))()
"""
MANY_ROWS = """
from rich.console import Console
from ml_assets.cli.command import told_in_words
told_in_words(lambda: Console().print("line\\n" * 1_000))()
"""
LOST_SERVER = """
from ml_assets.cli.command import told_in_words
def lost(): raise BrokenPipeError(32, "Broken pipe")
told_in_words(lost)()
"""


def run(code: str, output: int) -> str:
    """What it says in place of an answer."""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True, check=False
    )
    return done.stderr


def test_whoever_has_read_enough_is_told_nothing_of_servers():
    reads, writes = os.pipe()
    os.close(reads)
    told, of_rows = run(MANY_LINES, writes), run(MANY_ROWS, writes)
    os.close(writes)
    assert "Exit: 141" in told and "server" not in told and of_rows == ""


def test_a_server_that_went_away_is_told():
    assert "A server went away or failed" in run(LOST_SERVER, subprocess.DEVNULL)
