"""Upgrades: a home of a former release is brought to this release's format by numbered steps, each recorded.

`open_home` is what every way into a home begins with: it refuses a home of a newer release, and does what is due. What
belongs here: in which order steps are done, by whom, and that it is written down. What a step does lies in a module of
its own, `step_<number>.py`, or where its store is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ml_assets.errors import Refusal
from ml_assets.lib import home_format
from ml_assets.lib.home_format import DoneStep
from ml_assets.maintenance.upgrade.steps import STEPS, Step
from ml_assets.services.home import read_format, refuse_newer_home, release, write_format
from ml_assets.settings import Settings

__all__ = ["STEPS", "Step", "done_steps", "due_steps", "open_home"]


def due_steps(home: Path) -> list[Step]:
    """What a home lacks to be of this release's format; nothing where there is no home.

    Raises:
        Refusal: as `refuse_newer_home`.
    """
    refuse_newer_home(home)
    known = {step.number: step for step in STEPS}
    return [known[number] for number in home_format.due(read_format(home).number, known)]


def done_steps(home: Path) -> tuple[DoneStep, ...]:
    """The steps that were done in a home, in order."""
    return read_format(home).steps


def open_home(settings: Settings, say: Callable[[str], None] | None = None) -> list[DoneStep]:
    """Bring a home to this release's format, if it is not; every other process waits meanwhile.

    A step that was killed is done again by whoever comes next; a step that is done is not.

    Args:
        say: is told in a sentence of each step that was done.

    Returns:
        The steps that were done now.

    Raises:
        Refusal: the home is a newer release's, is open for reading alone, or is served by a former release; or another
            process has upgraded it for longer than `write_timeout_s`.
        StoreUnavailable: a store that a step changes does not answer; what was done before it is recorded.
    """
    home = settings.home
    if not due_steps(home):
        return []
    _refuse_while_served(home)
    if settings.read_only:
        raise Refusal(
            f"The home {home} has format {read_format(home).number} and is open for reading alone, so it cannot be "
            f"brought to format {home_format.FORMAT}: run 'ml-assets upgrade' without ML_ASSETS_READ_ONLY once."
        )
    done = []
    with _alone(home, settings.write_timeout_s):
        for step in due_steps(home):  # anew: whoever was waited for may have done them
            step.run(settings)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            done.append(DoneStep(step.number, step.title, now, release()))
            write_format(home, read_format(home).after(done[-1]))
            if say:
                say(f"Upgraded {home} to format {step.number}: {step.title}.")
    return done


def _refuse_while_served(home: Path) -> None:
    """Refuse to change a home under the processes of a release that does not know of it."""
    from ml_assets.services.server import holder

    if (pid := holder(home / "up.lock")) is not None:
        raise Refusal(
            f"The home {home} is of a former release, whose `ml-assets up` (process {pid}) still runs on it: stop that "
            "one with 'ml-assets down', and run this again."
        )


@contextmanager
def _alone(home: Path, timeout_s: float) -> Iterator[None]:
    """Be the only one who upgrades a home.

    Raises:
        Refusal: another process does, and was not done in time.
    """
    from filelock import FileLock, Timeout

    folder = home / "tmp"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(folder / "upgrade.lock", timeout=timeout_s, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise Refusal(
            f"Another process has been upgrading {home} for more than {timeout_s:g} s (lock {lock.lock_file}): wait for "
            "it, and run this again."
        ) from None
    try:
        yield
    finally:
        lock.release()
