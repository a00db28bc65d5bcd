"""Files by their content: each is stored once, under its SHA-256, and is what its name says or is refused.

What belongs here: putting a file in place, checking it, taking it away. Which of them somebody still names is known
to the registry; whoever puts one in place or takes one away does so within a writing transaction of the registry, so
that the two never cross.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ml_assets.errors import Refusal

_READ_BYTES = 2**20
_LEFT_OVER_S = 24 * 3600
"""After this time a copy that was never put in place belongs to a process that is gone."""

_PLAIN = re.compile(r"(?!\.)[\w.-]{1,100}", re.ASCII)
"""An id that may be the name of a folder as it is."""

_SHA256 = re.compile("[0-9a-f]{64}")
_PARTIAL = ".partial"
_RUNS = "runs"


@dataclass(frozen=True)
class Staged:
    """A copy of a file that is on the disk and not yet in place."""

    path: Path
    sha256: str
    size_bytes: int


class ContentStore:
    """Files below a folder: `ab/cdef...` holds the content whose SHA-256 is `abcdef...`.

    Args:
        folder: `ML_ASSETS_HOME/artifacts`; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where a content lies."""
        return self.folder / sha256[:2] / sha256[2:]

    @contextmanager
    def staged(self, source: Path) -> Iterator[Staged]:
        """A copy of a file, hashed while it is copied, and flushed; gone after the block unless it was put in place.

        Raises:
            Refusal: there is no such file.
            OSError: it cannot be read, or the copy cannot be written.
        """
        if not source.is_file():
            raise Refusal(f"{source} is no file: name one; of a folder, add its files one by one.")
        (self.folder / _PARTIAL).mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=self.folder / _PARTIAL)
        copy, digest, size = Path(name), hashlib.sha256(), 0
        try:
            with open(number, "wb") as target, source.open("rb") as stream:  # noqa: PTH123 - of a number
                while part := stream.read(_READ_BYTES):
                    digest.update(part)
                    size += target.write(part)
                target.flush()
                os.fchmod(number, 0o400)
                os.fsync(number)
            yield Staged(copy, digest.hexdigest(), size)
        finally:
            copy.unlink(missing_ok=True)

    def intact(self, sha256: str) -> bool:
        """Whether the content is in place, unchanged. It is read for that."""
        return self.found(sha256) == sha256

    def found(self, sha256: str) -> str | None:
        """SHA-256 of what lies in the content's place; None if nothing does."""
        try:
            with self.path(sha256).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def put(self, staged: Staged, intact: bool) -> None:
        """Put a copy in place, so that it outlives a power cut; nothing happens if the content is there.

        Args:
            intact: whether what lay there was found unchanged; what was changed is replaced.
        """
        place = self.path(staged.sha256)
        if intact and place.exists():
            return
        place.parent.mkdir(exist_ok=True)
        staged.path.replace(place)
        _flush(place.parent)
        _flush(self.folder)

    def remove(self, sha256: str) -> int:
        """Take a content away; returns the bytes that it had."""
        place = self.path(sha256)
        try:
            size = place.stat().st_size
            place.unlink()
        except FileNotFoundError:
            return 0
        with suppress(OSError):  # other contents are in it
            place.parent.rmdir()
        return size

    def all(self) -> Iterator[str]:
        """SHA-256 of every content that is in place."""
        for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
            try:
                found = [folder.name + file.name for file in folder.iterdir()]
            except FileNotFoundError:  # its last one has just gone
                continue
            yield from filter(_SHA256.fullmatch, found)

    def size(self) -> int:
        """Bytes of everything that is in place."""
        total = 0
        for sha256 in self.all():
            with suppress(FileNotFoundError):  # it has just gone
                total += self.path(sha256).stat().st_size
        return total

    def clear_partial(self) -> None:
        """Remove copies that were never put in place, whose processes are gone."""
        for file in (self.folder / _PARTIAL).glob("*"):
            with suppress(FileNotFoundError):  # put in place or removed just now
                if time.time() - file.stat().st_mtime > _LEFT_OVER_S:
                    file.unlink()

    # --- a run's files under their names ------------------------------------------------------------

    def view(self, run_id: str) -> Path:
        """The folder that shows a run's files under their own names."""
        name = run_id if _PLAIN.fullmatch(run_id) else hashlib.sha256(run_id.encode()).hexdigest()
        return self.folder / _RUNS / name

    def show(self, run_id: str, files: Mapping[str, str]) -> list[str]:
        """Make a run's folder hold these files and no others: hard links, which take no room, or copies.

        Args:
            files: SHA-256 by path within the folder.

        Returns:
            The paths whose content is gone.
        """
        view, gone = self.view(run_id), []
        wanted = {view / path for path in files}
        for each in view.rglob("*"):
            if each not in wanted and not each.is_dir():
                each.unlink()
        for path, sha256 in files.items():
            place, content = view / path, self.path(sha256)
            if not content.exists():
                gone.append(path)
                continue
            if place.is_dir():  # a file stands where a folder was
                shutil.rmtree(place)
            if not (place.exists() and place.samefile(content)):
                place.parent.mkdir(parents=True, exist_ok=True)
                _linked(content, place)
        return gone

    def clear_views(self, run_ids: set[str]) -> None:
        """Remove the folders of runs but for these."""
        kept = {self.view(run_id).name for run_id in run_ids}
        for view in (self.folder / _RUNS).glob("*"):
            if view.name not in kept:
                shutil.rmtree(view)


def _linked(content: Path, place: Path) -> None:
    fresh = place.with_name(f".{os.getpid()}.partial")
    fresh.unlink(missing_ok=True)
    try:
        os.link(content, fresh)
    except OSError:  # a file system without links, or too many of one file
        shutil.copyfile(content, fresh)
    fresh.replace(place)


def _flush(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
