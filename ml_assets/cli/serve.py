"""Dagster's UI and daemon in the foreground, stopped cleanly by Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys

from ml_assets.errors import Refusal
from ml_assets.settings import PROJECT_ROOT, Settings

STOP_SECONDS = 20.0
"""How long UI and daemon get to end by themselves; a code server takes a few seconds."""


def require_port(settings: Settings) -> None:
    """Refuse early, before minutes of training, if the UI's port is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the web server does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise Refusal(
                f"Port {settings.port} on {settings.host} cannot be used ({error.strerror}): stop what "
                "listens there, or choose another one with ML_ASSETS_PORT."
            ) from error


def serve(settings: Settings) -> int:
    """Run UI, daemon and code server until Ctrl-C or SIGTERM; the exit status."""
    require_port(settings)
    # `dg dev`, which the warning recommends, needs a project's folder; this runs from wherever it is installed.
    command = [sys.executable, "-W", "ignore:Function `dev_command` is superseded", "-m", "dagster", "dev"]
    # What sensors find and skip every few seconds stands in the UI; here it would bury what matters.
    command += ["--log-level", "warning"]
    command += ["-w", str(PROJECT_ROOT / "workspace.yaml"), "-h", settings.host, "-p", str(settings.port)]

    def stop(signum: int, frame: object) -> None:
        # A second Ctrl-C must not keep the first one from stopping the servers.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    # Before the child starts: a handled signal is reset to its default there, while an ignored one, as a
    # shell's background job has it, would be inherited and the servers could not be stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    # A session of its own: Ctrl-C in the terminal reaches this process alone, which then stops the child.
    child = subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=settings.child_environment(), start_new_session=True
    )
    try:
        return child.wait()
    except KeyboardInterrupt:
        _stop(child)
        return 0


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the servers in order, then whatever of theirs (code servers, run workers) outlived them."""
    import psutil

    family = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
    child.send_signal(signal.SIGINT)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS / 2)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS / 4)
