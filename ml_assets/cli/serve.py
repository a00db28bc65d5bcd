"""`ml-assets up`: the demo where it is wanted, then Dagster's UI and daemon in the foreground until Ctrl-C."""

import signal
import subprocess
import sys
import threading

from ml_assets.cli.journal import ServerLog, log_file, told_as_they_end
from ml_assets.cli.lost_runs import fail_lost_runs
from ml_assets.cli.session import MARK, held
from ml_assets.errors import Refusal
from ml_assets.services.server import bind_fault
from ml_assets.settings import PROJECT_ROOT, Settings


def up(settings: Settings, empty: bool = False) -> int:
    """Make the demo if there is none yet, unless it is not wanted, then serve; the exit status.

    Args:
        empty: never make the demo.

    Raises:
        Refusal: another `up` runs on this home, or the port is taken.
    """
    with held(settings.home, _url(settings)) as mark:
        _require_port(settings)
        _end_as_ctrl_c_does()
        _fill(settings, empty)
        for sentence in fail_lost_runs(settings):
            _say(sentence)
        print(
            f"\nDagster is at {_url(settings)} — Ctrl-C stops it, `ml-assets down` the stores as well.\n"
            f"Files that land in {settings.landing} are taken in by themselves; what becomes of them is told here, "
            f"all else in {log_file(settings.home)}.",
            flush=True,
        )
        return serve(settings, mark)


def serve(settings: Settings, mark: str) -> int:
    """Run UI, daemon and code server until Ctrl-C, SIGTERM or SIGHUP; the exit status."""
    # `dg dev`, which the warning recommends, needs a project's folder; this runs from wherever it is installed.
    command = [sys.executable, "-W", "ignore:Function `dev_command` is superseded", "-m", "dagster", "dev"]
    # What sensors find and skip every few seconds stands in the UI; in the log it would bury what matters.
    command += ["--log-level", "warning"]
    command += ["-w", str(PROJECT_ROOT / "workspace.yaml"), "-h", settings.host, "-p", str(settings.port)]

    def stop(signum: int, frame: object) -> None:
        # A second Ctrl-C must not keep the first one from stopping the servers.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    keeper = None
    log = ServerLog(log_file(settings.home), _say)
    try:
        # Anew: Dagster, which may have made the demo in this process, has put its own in their place.
        _end_as_ctrl_c_does()
        signal.signal(signal.SIGINT, stop)
        with told_as_they_end(settings, _say):
            keeper = subprocess.Popen(
                [sys.executable, "-m", "ml_assets.cli.keeper", mark, *command],
                # Dagster warns of a dagster.yaml in its folder that is not the instance's own, which the project has.
                cwd=settings.home,
                env={**settings.child_environment(), MARK: mark},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            # A daemon: whoever inherited the pipe may outlive the servers.
            threading.Thread(target=log.take, args=(keeper.stdout,), daemon=True).start()
            status = keeper.wait()
        if status:
            _say("\n".join(["Dagster ended by itself; its last words:", *log.last]))
        return status
    except KeyboardInterrupt:
        if keeper is not None and keeper.stdin is not None:
            keeper.stdin.close()
            keeper.wait()
        return 0


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def _fill(settings: Settings, empty: bool) -> None:
    """Make the demo, or say why not."""
    from ml_assets.cli.demo import run_demo, start_services
    from ml_assets.cli.instance import prepare_home
    from ml_assets.cli.report import print_summary, progress_bars
    from ml_assets.demo.uninvited import why_uninvited

    why = "--empty was given" if empty else why_uninvited(settings)
    if why is None:
        with progress_bars() as bars:
            report = run_demo(settings, bars)
        print_summary(settings, report)
        return
    with progress_bars() as bars:
        prepare_home(settings)
        start_services(settings, bars)
    print(f"No demo is made, because {why}; `ml-assets demo` makes it.")


def _end_as_ctrl_c_does() -> None:
    """Let SIGTERM and a closed terminal do what Ctrl-C does, whoever handles that by then."""
    # A shell's background job ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))


def _require_port(settings: Settings) -> None:
    """Refuse early, before minutes of training, if the UI's port is taken."""
    if fault := bind_fault(settings.host, settings.port):
        raise Refusal(
            f"Port {settings.port} on {settings.host} cannot be used ({fault.strerror}): stop what "
            "listens there, or choose another one with ML_ASSETS_PORT."
        ) from fault


def _url(settings: Settings) -> str:
    return f"http://{settings.host}:{settings.port}"
