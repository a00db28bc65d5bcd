"""`python -m ml_assets_tests.servers COMMAND`: what becomes of the command when it is stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

_COMMAND = """
import pathlib, signal, sys, time

def clear_away(*_):
    time.sleep(0.5)  # longer than subprocess waits before it kills
    pathlib.Path(sys.argv[1]).touch()
    sys.exit(7)

signal.signal(signal.SIGTERM, clear_away)
signal.signal(signal.SIGINT, clear_away)
print("ready", flush=True)
signal.pause()
"""

_MAIN = """
import contextlib, sys
from ml_assets_tests import servers

servers.started = lambda *_: contextlib.nullcontext({})
print(servers.main(sys.argv[1:]))
"""


def test_tests_that_are_stopped_clear_away_what_they_have_made(tmp_path: Path):
    """Databases on servers that are somebody's stay otherwise."""
    for number, everyone in (
        (signal.SIGTERM, False),
        (signal.SIGINT, True),
    ):  # `kill`, and Ctrl-C in a terminal
        cleared = tmp_path / number.name
        command = [sys.executable, "-c", _MAIN, sys.executable, "-c", _COMMAND, str(cleared)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ML_ASSETS_")}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            if everyone:
                os.killpg(running.pid, number)
            else:
                running.send_signal(number)
            told = running.stdout.read()
        assert cleared.exists()
        assert told == "7\n"
