"""Where the parts of a home lie, and what of each folder is backed up how.

A place is a root with a name. In a backup a file is named by its place and its path below it, so that a lake that lies
elsewhere, say, is restored to wherever the settings of the restored home have it.
"""

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ml_assets.errors import StoreUnavailable
from ml_assets.lib.backup import LeftOut
from ml_assets.settings import Settings
from ml_assets.tables import pause

_NOT_KEPT = {"tmp", "services", "up.json", "up.lock", pause.TURNSTILE, pause.GATE, "models"}
"""In a home: what processes leave for each other, the embedded servers' folders, which are places of their own, and the
embedding models, which their first use builds anew out of what is installed."""

_SQLITE_SUFFIXES = {".db", ".sqlite", ".sqlite3"}
_SQLITE_HEADER = b"SQLite format 3\0"
_BESIDE = ("-wal", "-shm", "-journal")
_LOCK_WAIT_S = 60.0


@dataclass(frozen=True)
class Found:
    """Something below a place.

    Args:
        path: below the place, with slashes.
        file: where it is.
        kind: `database` is a SQLite file, which is copied by SQLite; `folder` an empty one.
    """

    path: str
    file: Path
    kind: str


def places(settings: Settings) -> dict[str, Path]:
    """The root of each place that lies on this machine, by its name; `sqlite` is a file."""
    home = settings.home
    found = {"home": home, "sqlite": settings.sqlite_path}
    if "://" not in settings.lake_data_path:
        found["lake"] = Path(os.path.abspath(settings.lake_data_path))
    if settings.mode("clickhouse") == "embedded":
        url = settings.clickhouse_url
        found["clickhouse"] = Path(unquote(urlsplit(url).path)) if url else home / "services" / "clickhouse"
    if settings.mode("chroma") == "embedded":
        found["chroma"] = home / "services" / "chroma" / "data"
    return found


def of_home(path: str) -> bool:
    """Whether a SQLite file of a home is one that programs write, and no file of a run."""
    room, *rest = path.split("/")
    return room in ("dagster", "light", "sqlite") or (room == "mlflow" and len(rest) == 1)


def everything(
    root: Path, without: Collection[Path] = (), databases: Callable[[str], bool] = of_home
) -> Iterator[Found]:
    """All that lies below a folder; what others remove meanwhile is left out.

    Args:
        without: files and folders that are passed over.
        databases: by their path, which SQLite files may be written meanwhile.
    """
    passed = set(without)
    for parent, folders, names in os.walk(root):
        here = Path(parent)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links and here / name not in passed)
        kept = [name for name in sorted((*names, *links)) if here / name not in passed]
        if not folders and not kept and here != root:
            yield Found(here.relative_to(root).as_posix(), here, "folder")
        written = {
            name
            for name in kept
            if _is_sqlite(here / name) and databases((here / name).relative_to(root).as_posix())
        }
        beside = {f"{name}{suffix}" for name in written for suffix in _BESIDE}
        for name in kept:
            file = here / name
            if name in beside:
                continue
            try:
                mode = file.lstat().st_mode
            except FileNotFoundError:
                continue
            kind = "link" if stat.S_ISLNK(mode) else "database" if name in written else "file"
            if stat.S_ISLNK(mode) or stat.S_ISREG(mode):  # sockets and pipes are of those who run
                yield Found(file.relative_to(root).as_posix(), file, kind)


def runtime_files(settings: Settings) -> set[Path]:
    """What of a home is not backed up, since it is made by whoever runs, or filled out of PostgreSQL."""
    found = {settings.home / name for name in _NOT_KEPT}
    if settings.qdrant_url and (url := urlsplit(settings.qdrant_url)).scheme == "edge":
        folder = Path(unquote(url.path))
        found |= {folder, *(folder.with_name(f"{folder.name}.{each}") for each in ("lock", "wanted"))}
    return found


def linked_folders(found: Collection[Found]) -> list[LeftOut]:
    """Links to folders elsewhere, whose files are not in a backup; ClickHouse's own lead to its own folder."""
    return [
        LeftOut(
            each.path,
            f"it is a link to {each.file.resolve()}, whose files are not in the backup.",
            f"cp -a {each.file}/. ELSEWHERE",
        )
        for each in found
        if each.kind == "link" and each.file.is_dir()
    ]


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite file that others may be writing, as it stands after their last transaction.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    place = f"file:{quote(str(source))}?mode=rw"
    try:
        with (
            closing(sqlite3.connect(place, uri=True, timeout=_LOCK_WAIT_S)) as origin,
            closing(sqlite3.connect(target)) as copy,
        ):
            origin.backup(copy)
    except sqlite3.Error as fault:
        raise StoreUnavailable(
            f"The SQLite file {source} cannot be copied ({fault}): see to it, or move it out of the home; nothing of the "
            "backup was kept."
        ) from fault


def link_or_copy() -> Callable[[Path, Path], None]:
    """A function that gives a file a second name, or copies it where the file system has no such links."""
    links = True

    def done(source: Path, target: Path) -> None:
        nonlocal links
        if links:
            try:
                os.link(source, target, follow_symlinks=False)
            except FileNotFoundError:
                raise
            except OSError:  # another file system, or one without links
                links = False
            else:
                return
        shutil.copy2(source, target, follow_symlinks=False)

    return done


def stage(
    root: Path,
    target: Path,
    without: Collection[Path] = (),
    databases: Callable[[str], bool] = of_home,
    copy: bool = False,
) -> list[Found]:
    """Keep all that lies below a folder as it is now, in another one.

    Args:
        target: folder of the same file system; its files are second names of the same contents where that is possible.
        without, databases: as `everything`.
        copy: copy files, of which a program may change the contents.

    Returns:
        what was found, each with the file in `target`.
    """
    put = link_or_copy()
    kept: list[Found] = []
    target.mkdir(parents=True, exist_ok=True)
    for each in everything(root, without, databases):
        file = target / each.path
        if each.kind in ("folder", "link"):
            kept.append(each)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # it has gone since it was listed
            if each.kind == "database":
                copy_sqlite(each.file, file)
            elif copy:
                shutil.copy2(each.file, file)
            else:
                put(each.file, file)
            kept.append(Found(each.path, file, each.kind))
    return kept


def _is_sqlite(file: Path) -> bool:
    if file.suffix not in _SQLITE_SUFFIXES or file.is_symlink():
        return False
    try:
        with file.open("rb") as source:
            return source.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER
    except OSError:  # it has gone, or is no file
        return False
