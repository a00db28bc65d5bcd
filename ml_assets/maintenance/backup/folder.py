"""The folder that backups lie in: contents by their hash, each once, and a manifest for each backup.

    ml-assets-backups.json    says that the folder is ours
    backups/<id>.json         a manifest, written last: what is not there was never made
    objects/ab/ab12...        a content, called by its SHA-256
    tmp/                      what is being written; swept by the next backup

What belongs here: keeping and checking contents. What does not: what is backed up, and when.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

from ml_assets.errors import Refusal
from ml_assets.lib import backup as manifests
from ml_assets.lib.backup import Entry, Manifest
from ml_assets.lib.words import counted

Progress = Callable[[str, int, int], None]
"""Is called with (what is being done, how much is done, how much there is to do)."""

_MARK = "ml-assets-backups.json"
_CHUNK = 1 << 20
_SHOWN = 3


@dataclass(frozen=True)
class Kept:
    """A content that was put into the folder.

    Args:
        sha256, bytes: of the content.
        new: whether it was not there before.
        changed: whether the file was changed again and again while it was read, so that what is kept is no moment's.
    """

    sha256: str
    bytes: int
    new: bool
    changed: bool = False


class BackupFolder:
    """A folder of backups.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path.expanduser()))
        self._manifests = self.path / "backups"
        self._objects = self.path / "objects"
        self.tmp = self.path / "tmp"

    def prepare(self) -> None:
        """Make the folder, for its owner alone.

        Raises:
            Refusal: it holds something else.
        """
        mark = self.path / _MARK
        if not mark.exists():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise Refusal(
                    f"{self.path} holds something else than backups: name an empty folder, or one that is not there yet."
                )
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = mark.with_suffix(".new")
            draft.write_text(json.dumps({"format": manifests.FORMAT}))
            draft.replace(mark)
        for folder in (self._manifests, self._objects, self.tmp):
            folder.mkdir(mode=0o700, exist_ok=True)

    def require(self) -> None:
        """Refuse a folder without backups.

        Raises:
            Refusal: it is none of ours.
        """
        if not (self.path / _MARK).exists():
            raise Refusal(f"{self.path} is no folder of backups: 'ml-assets backup {self.path}' makes one.")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who writes here.

        Raises:
            Refusal: another process does.
        """
        with (self.path / _MARK).open("rb") as mark:
            hold(mark, f"making a backup in {self.path}: wait for it, and run this again")
            yield

    # Manifests.

    def ids(self) -> list[str]:
        """The backups that there are, the oldest first."""
        found = (file.stem for file in self._manifests.glob("*.json")) if self._manifests.is_dir() else ()
        return sorted(filter(manifests.is_id, found))

    def read(self, backup_id: str) -> Manifest:
        """The manifest of a backup.

        Raises:
            Refusal: it was changed, or is of a newer release.
        """
        return manifests.from_bytes((self._manifests / f"{backup_id}.json").read_bytes(), backup_id)

    def require_readable(self) -> None:
        """Refuse to remove anything where it is not known what all backups name.

        Raises:
            Refusal: a manifest was changed, or is of a newer release.
        """
        for backup_id in self.ids():
            self.read(backup_id)

    def publish(self, manifest: Manifest) -> str:
        """Make a backup of a manifest whose contents are all here; its id."""
        backup_id = manifests.new_id(manifest)
        os.sync()  # its contents are on the disk before it is
        file = self._manifests / f"{backup_id}.json"
        draft = self.tmp / file.name
        with draft.open("wb") as target:
            target.write(manifests.to_bytes(manifest))
            target.flush()
            os.fsync(target.fileno())
        draft.replace(file)
        _sync_folder(self._manifests)
        return backup_id

    def outdated(self, home: str, keep: int) -> list[str]:
        """The backups of a home that go where only its newest are kept; those of other homes stay.

        Args:
            keep: how many stay, at least one.

        Raises:
            Refusal: none is to stay, or a manifest cannot be read.
        """
        return manifests.outdated((each for each in self.ids() if self.read(each).home == home), keep)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove backups; what they alone named goes with the next `sweep`."""
        for backup_id in ids:
            (self._manifests / f"{backup_id}.json").unlink(missing_ok=True)
        _sync_folder(self._manifests)

    def sweep(self) -> tuple[int, int]:
        """Remove what killed backups left and contents that no backup names; how many, and their bytes.

        Raises:
            Refusal: a manifest cannot be read, so it is not known what it names; nothing was removed.
        """
        held = {file.name: file for file in self._objects.glob("*/*")}
        going = manifests.unnamed(held, map(self.read, self.ids()))
        freed = sum(held[name].stat().st_size for name in going)
        for name in going:
            held[name].unlink(missing_ok=True)
        self.sweep_unfinished()
        return len(going), freed

    def sweep_unfinished(self) -> None:
        """Remove what killed backups were writing."""
        for left in self.tmp.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()

    # Contents.

    def object(self, sha256: str) -> Path:
        """Where a content lies."""
        return self._objects / sha256[:2] / sha256

    def put(self, file: Path) -> Kept:
        """Keep the content of a file, unless it is here already.

        Of a file that grows meanwhile, such as a log, what it held when it was opened is kept.

        Raises:
            FileNotFoundError: it has gone.
        """
        for last in (False, False, True):
            before = file.stat()
            sha256 = _hashed(file, before.st_size)
            target = self.object(sha256)
            if _bytes(target) == before.st_size and _unchanged(file, before):
                return Kept(sha256, before.st_size, new=False)
            kept = self._copied(file, before.st_size)
            if last or _unchanged(file, before):
                break
        return replace(kept, changed=not _unchanged(file, before))

    def _copied(self, file: Path, limit: int) -> Kept:
        try:
            with tempfile.NamedTemporaryFile(dir=self.tmp, delete=False) as draft, file.open("rb") as source:
                sha256, size = _copy(source, draft, limit)
        except OSError as fault:
            if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Refusal(
                f"The disk of {self.path} is full: make room there, by '--keep' for example, or name a folder on another "
                "disk. Earlier backups are as they were."
            ) from None
        target = self.object(sha256)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        new = _bytes(target) != size
        # What has another size than its content is damaged, and is mended by this.
        Path(draft.name).chmod(0o400)
        Path(draft.name).replace(target)
        return Kept(sha256, size, new)

    def fetch(self, entry: Entry, target: Path) -> None:
        """Copy a content to where it belongs.

        Raises:
            Refusal: it is not what was written.
        """
        with self.object(entry.sha256).open("rb") as source, target.open("xb") as copy:
            sha256, _ = _copy(source, copy, entry.bytes + 1)
        if sha256 != entry.sha256:
            raise Refusal(f"{self.object(entry.sha256)} was damaged since it was checked: run this again.")

    def damage(self, manifest: Manifest, progress: Progress) -> list[str]:
        """What of a backup is not as it was written, a sentence each; the first of each content."""
        told: dict[str, str] = {}
        named: dict[str, list[Entry]] = {}
        for entry in manifest.entries:
            if entry.sha256:
                named.setdefault(entry.sha256, []).append(entry)
        done, total = 0, sum(entries[0].bytes for entries in named.values())
        for sha256, entries in named.items():
            if fault := self._fault(sha256, entries[0].bytes):
                told[sha256] = f"{_named(entries)}: {self.object(sha256)} {fault}"
            done += entries[0].bytes
            progress("checking the backup", done, total)
        return list(told.values())

    def _fault(self, sha256: str, size: int) -> str:
        file = self.object(sha256)
        found = _bytes(file)
        if found is None:
            return "is missing."
        if found != size:
            return f"has {found:,} bytes, not {size:,}."
        return "" if _hashed(file, size) == sha256 else "has another content than was written."


def hold(lock: "IO[Any]", doing: str) -> None:
    """Lock a file as long as it is open.

    Args:
        doing: what whoever has it is doing, and what to do about it, in a sentence without its end.

    Raises:
        Refusal: another process has it.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refusal(f"Another process is {doing}.") from None


def _named(entries: list[Entry]) -> str:
    some = ", ".join(f"{entry.place}/{entry.path}" for entry in entries[:_SHOWN])
    return some + (f" and {counted(len(entries) - _SHOWN, 'other')}" if len(entries) > _SHOWN else "")


def _copy(source: BinaryIO, target: "BinaryIO | IO[bytes]", limit: int) -> tuple[str, int]:
    """Copy at most so many bytes; the SHA-256 and the number of those that were copied."""
    digest, done = hashlib.sha256(), 0
    while part := source.read(min(_CHUNK, limit - done)):
        digest.update(part)
        target.write(part)
        done += len(part)
    return digest.hexdigest(), done


def _hashed(file: Path, limit: int) -> str:
    digest, done = hashlib.sha256(), 0
    with file.open("rb") as source:
        while part := source.read(min(_CHUNK, limit - done)):
            digest.update(part)
            done += len(part)
    return digest.hexdigest()


def _bytes(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def _unchanged(file: Path, before: os.stat_result) -> bool:
    after = file.stat()
    return (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
