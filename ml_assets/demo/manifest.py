"""The manifest of the demo, `home/demo/manifest.json`: which fortnight, which of its days are finished.

It is the identity of the demo: MLflow gives its runs new ids each time, so a day that stands here is never
trained again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path

from ml_assets.errors import Refusal
from ml_assets.settings import Settings

LEAVING = (
    "The demo is being taken out of this home: finish that with `ml-assets demo --remove`, then make it anew."
)


@dataclass(frozen=True)
class Day:
    """A finished day.

    Args:
        counts: runs, failed, events, predictions, documents, judgments.
        seconds: wall time by phase.
        files: landing files, relative to the landing folder.
        hashes: SHA-256 of each of `files`, in hexadecimal; none of days that were made before hashes were noted.
    """

    counts: dict[str, int]
    seconds: dict[str, float]
    files: list[str]
    hashes: dict[str, str] = field(default_factory=dict)


@dataclass
class Manifest:
    """The state of the demo in one home.

    Args:
        end: last replayed day, UTC.
        days: how many days are replayed.
        finished: finished days by number, from 1.
        former: landing files of an earlier fortnight whose rows the graph may still hold.
        leaving: whether the demo is being taken out of the home.
        tracked: ids of its runs in MLflow; noted when it leaves, since MLflow forgets them before intake does.
    """

    end: date
    days: int
    finished: dict[int, Day] = field(default_factory=dict)
    former: list[str] = field(default_factory=list)
    leaving: bool = False
    tracked: list[str] = field(default_factory=list)

    @property
    def start(self) -> date:
        """First replayed day."""
        return self.end - timedelta(days=self.days - 1)

    @property
    def complete(self) -> bool:
        """Whether every day is finished."""
        return len(self.finished) == self.days

    def date_of(self, day: int) -> date:
        """Date of day number `day`, from 1."""
        return self.start + timedelta(days=day - 1)

    def written(self) -> list[str]:
        """Landing files that were written, or were about to be when a call was killed."""
        # Only here: it imports pyarrow.
        from ml_assets.demo.landing_files import files_of

        unfinished = [day for day in range(1, self.days + 1) if day not in self.finished][:1]
        begun = [name for day in unfinished for name in files_of(day, self.date_of(day), self.days)]
        return [*(name for day in self.finished.values() for name in day.files), *begun]

    @staticmethod
    def folder(home: Path) -> Path:
        """Folder of the demo in a home; there before anything else is made for the demo."""
        return home / "demo"

    @staticmethod
    def path(home: Path) -> Path:
        """Where the manifest of a home lies."""
        return Manifest.folder(home) / "manifest.json"

    @classmethod
    def read(cls, home: Path) -> "Manifest | None":
        """The manifest of a home, None if it has none. Raises `Refusal` if it is damaged."""
        path = cls.path(home)
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        try:
            document = json.loads(text)
            return cls(
                date.fromisoformat(document["end"]),
                int(document["days"]),
                {int(number): Day(**day) for number, day in document["finished"].items()},
                list(document.get("former", ())),
                bool(document.get("leaving", False)),
                list(document.get("tracked", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            raise Refusal(
                f"The demo's manifest {path} cannot be read ({fault}): delete it and the demo's landing files "
                "(landing/*/demo-YYYY-MM-DD.*) to make the demo anew."
            ) from fault

    def write(self, home: Path) -> None:
        """Replace the manifest of a home, all or nothing."""
        path = self.path(home)
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "end": self.end.isoformat(),
            "days": self.days,
            "finished": {str(number): asdict(day) for number, day in self.finished.items()},
            "former": self.former,
            "leaving": self.leaving,
            "tracked": self.tracked,
        }
        fresh = path.with_name("manifest.json.tmp")
        with fresh.open("w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def last_day(settings: Settings, today: date) -> date:
    """Last day of a fortnight that is made today: the day before, unless the settings name one."""
    return settings.demo_end or today - timedelta(days=1)


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the demo of a home: nobody else makes it or changes its manifest meanwhile.

    Raises:
        Refusal: another process did not let go of it within the write time-out.
    """
    from filelock import FileLock, Timeout

    folder = settings.home / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=settings.write_timeout_s)
    try:
        lock.acquire()
    except Timeout as fault:
        raise Refusal(
            f"Another process has been making the demo under {settings.home} for "
            f"{settings.write_timeout_s:g} s: wait for it or stop it, then run this again."
        ) from fault
    try:
        yield
    finally:
        lock.release()
