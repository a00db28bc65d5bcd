"""What the embedded servers have in common: being found, started once, and stopped.

Belongs here: the folder of a server, the lock that says whether it lives, starting and stopping it, and
turning what goes wrong into one sentence. What is particular to one server is in its own module.
"""

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ml_assets.errors import ServiceError
from ml_assets.services.home import private_home

if TYPE_CHECKING:
    import psutil

START_TIMEOUT_S = 60.0
"""How long a server may take to answer, and how long a process waits for another one that starts it."""
STOP_TIMEOUT_S = 30.0
DEAF_TIMEOUT_S = 5.0
"""A server that lives but has not listened for this long (its socket was swept away) is started anew."""
PROBE_TIMEOUT_S = 5.0
LOG_LIMIT_BYTES = 8 << 20

# `struct flock`: l_type, l_whence, l_start, l_len, l_pid; on macOS l_start, l_len, l_pid, l_type, l_whence.
_FLOCK = "qqihh" if sys.platform == "darwin" else "hhqqi4x"
_COMPLAINT = re.compile(r"FATAL|PANIC|ERROR|[Ee]rror|not available|not permitted|No space left")
# PostgreSQL's: why it ended, and not what it says to whoever asks meanwhile whether it is there.
_END = re.compile(r"\b(?:FATAL|PANIC):(?!\s*the database system is )")
_DETAIL = re.compile(r"\bDETAIL:\s+(.*)")
_ADVICE = re.compile(r"\b(?:HINT|DETAIL|STATEMENT|CONTEXT|hint|detail):")
_ENVIRONMENT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


_may_start: ContextVar[bool] = ContextVar("may_start", default=True)


@contextmanager
def only_running() -> Iterator[None]:
    """Within the block `ensure` finds servers, but neither starts nor restarts any: for those who only ask."""
    before = _may_start.set(False)
    try:
        yield
    finally:
        _may_start.reset(before)


@dataclass(frozen=True)
class ServiceState:
    """What is known of an embedded server without touching it."""

    name: str
    state: Literal["running", "stopped", "unavailable"]
    url: str | None
    pid: int | None
    data: Path
    log: Path


class Server(ABC):
    """One embedded server of one home."""

    name: ClassVar[str]
    title: ClassVar[str]
    stop_signal: ClassVar[int] = signal.SIGTERM

    def __init__(self, home: Path) -> None:
        self.home = Path(os.path.realpath(home))
        self.folder = self.home / "services" / self.name
        self.data = self.folder / "data"
        self.lock = self.folder / "server.lock"
        self.log = self.folder / "server.log"
        self._state = self.folder / "server.json"

    # What a server says of itself.

    @classmethod
    @abstractmethod
    def available(cls) -> bool:
        """Whether its program is installed here."""

    @abstractmethod
    def choose_url(self, last: str | None) -> str:
        """The URL to start at; `last` is the one of the previous start."""

    @abstractmethod
    def command(self, url: str) -> list[str]:
        """The program, by absolute path, and its arguments."""

    @abstractmethod
    def program(self) -> str:
        """Name of the program's file, by which its processes are told from others."""

    def prepare(self) -> None:
        """Make the data folder ready, with nobody in it.

        Raises:
            ServiceError: what lies there is closed to this user, as after a copy made by somebody else.
        """
        self.data.mkdir(mode=0o700, exist_ok=True)
        if closed := closed_entries(self.folder, self.data):
            raise ServiceError(self._closed(closed[0], os.strerror(errno.EACCES)))
        self._kill_leftovers()

    def remedy(self, said: str) -> str:
        """What to do about what a server said that did not start, as a sentence; "" if nobody knows."""
        return ""

    def owner(self) -> tuple[int, int]:
        """uid and gid that the server runs as."""
        return os.geteuid(), os.getegid()

    @abstractmethod
    def probe(self, url: str) -> bool:
        """Whether the server at `url` answers; False where nothing listens.

        Raises:
            TimeoutError: it is there, but silent or not ready.
        """

    def verify(self, url: str, pid: int) -> bool:
        """Whether what answers at `url` is process `pid`, not a stranger on the same port."""
        return True

    def initialise(self, url: str) -> None:  # noqa: B027 - most servers need nothing
        """Bring a server that has just started to what the project expects of it."""

    def version(self) -> str:
        """What `initialise` does, as a fingerprint: when it changes, it is done again."""
        return ""

    # What is the same for all.

    def ensure(self) -> str:
        """URL of the running server, started if need be.

        Raises:
            ServiceError: it cannot be had, or does not run within `only_running`.
        """
        if url := self._ready_url():
            return url
        if not self.available():
            raise ServiceError(
                f"The embedded {self.title} is not installed for this Python: "
                f"install the project's requirements, or set ML_ASSETS_{self.name.upper()}_URL to a server."
            )
        if not _may_start.get():
            does = "run" if holder(self.lock) is None else "answer"
            raise ServiceError(
                f"The embedded {self.title} does not {does}: `ml-assets refresh` or `make up` starts it."
            )
        with self._explained():
            private_home(self.home)
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._starting():
                return self._ready_url() or self._revive() or self._start()

    def stop(self) -> bool:
        """Stop the server and whatever a killed one left behind; whether there was anything to stop."""
        with self._explained():
            if not self.folder.is_dir():
                return self._kill_leftovers()  # the home may have been deleted under a server
            with self._starting():
                return self._stop()

    def describe(self) -> ServiceState:
        """What is known of the server; starts nothing."""
        with self._explained():
            pid = holder(self.lock)
            url = self._recorded().get("url") if pid else None
        state = "running" if pid else "stopped" if self.available() else "unavailable"
        return ServiceState(self.name, state, url, pid, self.data, self.log)

    def _ready_url(self) -> str | None:
        """The URL if the server lives, was made ready and answers: what almost every call finds."""
        with self._explained():
            record = self._recorded()
            pid = holder(self.lock)
            if pid is None or record.get("pid") != pid or record.get("version") != self.version():
                return None
            try:
                return record["url"] if self.probe(record["url"]) else None
            except TimeoutError:
                return None  # the patient way, under the lock, decides

    def _revive(self) -> str | None:
        """The URL of a server that lives but was not found ready: still starting, or swamped with work."""
        pid, url = holder(self.lock), self._recorded().get("url")
        if pid is not None and url is not None and self._answers(url, DEAF_TIMEOUT_S):
            return self._complete(url)
        if pid is not None:
            self._stop()
        return None

    def _start(self) -> str:
        self.prepare()
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.old"))
        self.log.touch(mode=0o600)
        heard = self.log.stat().st_size
        for _ in range(3):  # a stranger may take the port between our choice and the server's start
            url = self.choose_url(self._recorded().get("url"))
            self._record({"url": url})
            self._launch(url)
            if self._answers(url, START_TIMEOUT_S):
                return self._complete(url)
            if holder(self.lock) is not None:
                self._stop()
                break
        with self.log.open("rb") as log:
            log.seek(heard)
            said = complaint(log.read().decode(errors="replace"))
        remedy = self.remedy(said)
        raise ServiceError(
            f"The embedded {self.title} did not start ({said}); its log is {self.log}.{f' {remedy}' if remedy else ''}"
        )

    def _launch(self, url: str) -> None:
        shim = Path(__file__).with_name("launch.py")
        uid, gid = self.owner()
        arguments = [self.lock, self.log, self.data, uid, gid, *self.command(url)]
        started = subprocess.run(
            [sys.executable, "-I", "-S", shim, *map(str, arguments)],
            check=False,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if started.returncode:
            raise ServiceError(
                f"The embedded {self.title} could not be launched: {complaint(started.stderr)}."
            )

    def _answers(self, url: str, patience: float) -> bool:
        """Wait until the living server answers; False when it dies, or does not listen for `patience` s."""
        began = time.monotonic()
        while (pid := holder(self.lock)) is not None:
            waited = time.monotonic() - began
            try:
                if self.probe(url) and self.verify(url, pid):
                    return True
                if waited > patience:
                    return False
            except TimeoutError:
                if waited > START_TIMEOUT_S:
                    # Alive and perhaps in the middle of a write: not ours to kill unasked.
                    raise ServiceError(
                        f"The embedded {self.title} (process {pid}) has not answered for {waited:.0f} s: "
                        "wait until it has done its work, or stop it with `make down` and try again."
                    ) from None
            time.sleep(0.02)
        return False

    def _complete(self, url: str) -> str:
        self.initialise(url)
        self._record({"url": url, "pid": holder(self.lock), "version": self.version()})
        return url

    def _stop(self) -> bool:
        pid = holder(self.lock)
        if pid is not None:
            signal_process(pid, self.stop_signal)
            if not self._left(pid):
                signal_process(pid, signal.SIGKILL)
            if not self._left(pid):
                raise ServiceError(f"The embedded {self.title} (process {pid}) cannot be killed: see to it.")
        return self._kill_leftovers() or pid is not None

    def _left(self, pid: int) -> bool:
        """Wait until `pid` has gone, STOP_TIMEOUT_S at most."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while holder(self.lock) == pid:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _kill_leftovers(self) -> bool:
        """Kill what still runs in the data folder although no server holds the lock.

        Those are children of a server that was killed, or a server whose home was deleted under it. Servers
        run in their data folder, so they are told by it and by their program.
        """
        found = False
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while leftovers := list(self._leftovers()):
            if time.monotonic() > deadline:
                pid = leftovers[0].pid
                raise ServiceError(f"Process {pid} uses {self.data} and cannot be killed: see to it.")
            found = True
            for process in leftovers:
                signal_process(process.pid, signal.SIGKILL)
            time.sleep(0.02)
        return found

    def _leftovers(self) -> Iterator["psutil.Process"]:
        import psutil

        program = self.program()
        data = os.path.realpath(self.data)
        for process in psutil.process_iter(["cwd", "exe"]):
            # Neither is shown of a process that has ended and waits to be reaped, nor of another user's,
            # which cannot be in a folder that is ours alone.
            cwd, exe = process.info["cwd"], process.info["exe"]
            if cwd == data and exe and Path(exe).name == program:
                yield process

    def _recorded(self) -> dict:
        try:
            return json.loads(self._state.read_bytes())
        except (FileNotFoundError, ValueError):  # a power cut can leave an empty file
            return {}

    def _record(self, record: dict) -> None:
        draft = self._state.with_suffix(".new")
        draft.write_text(json.dumps(record))
        draft.replace(self._state)

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """One process at a time starts or stops the server."""
        import filelock

        try:
            with filelock.FileLock(self.folder / "start.lock", timeout=2 * START_TIMEOUT_S):
                yield
        except filelock.Timeout:
            raise ServiceError(
                f"Another process has been starting or stopping the embedded {self.title} for "
                f"{2 * START_TIMEOUT_S:.0f} s (lock {self.folder / 'start.lock'}): end it and try again."
            ) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Faults of the file system, in one sentence."""
        try:
            yield
        except OSError as error:
            raise ServiceError(self._explain(error)) from error

    def _explain(self, error: OSError) -> str:
        where = error.filename or self.folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"The disk of {where} is full: free some space, or set ML_ASSETS_HOME to another disk."
        if error.errno == errno.EROFS:
            return (
                f"{where} lies on a file system that is read-only, so {self.title} cannot run there: "
                "mount it for writing, or set ML_ASSETS_HOME to a folder elsewhere."
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return self._closed(Path(os.fsdecode(where)), error.strerror)
        return f"The embedded {self.title} cannot run in {self.folder}: {error.strerror or error} ({where})."

    def _closed(self, where: Path, why: str | None) -> str:
        return (
            f"{where} is not open to user {os.geteuid()} ({why}), so {self.title} cannot run there: "
            f"{opening(where, self.home)}, or set ML_ASSETS_HOME to a folder of your own."
        )


def holder(lock: Path) -> int | None:
    """Process id of the server that holds `lock`, as the kernel knows it; None if none does.

    Raises:
        ServiceError: the holder is not a process that can be seen from here.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        darwin = sys.platform == "darwin"
        question = (0, 0, 0, fcntl.F_WRLCK, 0) if darwin else (fcntl.F_WRLCK, 0, 0, 0, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, *question)))
    finally:
        os.close(descriptor)
    kind, pid = (answer[3], answer[2]) if darwin else (answer[0], answer[4])
    if kind == fcntl.F_UNLCK:
        return None
    if pid <= 0:
        raise ServiceError(f"{lock} is held in another container: use its server, or another ML_ASSETS_HOME.")
    return pid


def signal_process(pid: int, number: int) -> None:
    """Send a signal; a process that is already gone is what was wanted."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def ask(path: str, question: bytes) -> bytes | None:
    """What the server at the unix socket `path` answers; None where nothing listens.

    Raises:
        TimeoutError: it is there and silent.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PROBE_TIMEOUT_S)
        try:
            connection.connect(path)
            connection.sendall(question)
            return connection.recv(1024) or None
        except BlockingIOError:
            raise TimeoutError("its queue of connections is full") from None
        except (ConnectionError, FileNotFoundError):
            return None


def bind_fault(host: str, port: int) -> OSError | None:
    """Why no server could listen on a port; None if one could."""
    with socket.socket() as probe:
        # As servers do: connections of the last server that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            return fault
    return None


def runtime_folder(home: Path, uid: int) -> Path:
    """Short folder for the sockets of `home`, for `uid` alone; the same for every process.

    A socket's path may have 107 bytes at most, so it cannot lie under a home of any length. It is /tmp rather
    than TMPDIR or XDG_RUNTIME_DIR, because a cron job and a login shell would disagree about those.

    Raises:
        ServiceError: somebody else has made the folder.
    """
    base = Path(f"/tmp/ml-assets-{uid}")  # noqa: S108 - its owner and mode are checked
    folder = base / hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    for each in (base, folder):
        each.mkdir(mode=0o700, exist_ok=True)
        status = each.lstat()
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if not private or status.st_uid not in (uid, os.geteuid()):
            raise ServiceError(
                f"{each} must be a folder of user {uid} with mode 0700: remove it and try again."
            )
        if status.st_uid != uid:
            os.chown(each, uid, -1)
    return folder


def package_folder(package: str) -> Path | None:
    """Where an installed package lies, found without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def environment() -> dict[str, str]:
    """What a server gets of our environment: neither our secrets nor settings meant for another server."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**kept, "ANONYMIZED_TELEMETRY": "False"}


def closed_entries(*places: Path) -> list[Path]:
    """What of the files and folders, and directly in the folders, this user may not read and write.

    Raises:
        PermissionError: a folder may not be listed.
    """
    closed: list[Path] = []
    for place in places:
        for entry in (place, *(sorted(place.iterdir()) if place.is_dir() else ())):
            right = os.R_OK | os.W_OK | (os.X_OK if entry.is_dir() else 0)
            # A link leads elsewhere; of what has gone meanwhile nothing is asked.
            if not entry.is_symlink() and os.access(entry, os.F_OK) and not os.access(entry, right):
                closed.append(entry)
    return closed


def opening(entry: Path, home: Path) -> str:
    """The command that opens a home, of which an entry is closed, to this user, as words that follow a colon."""
    if not os.path.lexists(home):
        user = f"-o {os.geteuid()} -g {os.getegid()}"
        return f"`sudo install -d {user} {shlex.quote(str(home))}` makes the home for this user"
    while not os.access(entry, os.F_OK):  # unlike Path.exists, False of what lies behind a closed folder
        entry = entry.parent
    if entry.stat().st_uid != os.geteuid():
        return f"`{chown(home)}` gives it to this user"
    return f"`chmod -R u+rwX {shlex.quote(str(home))}` opens it"


def chown(folder: Path, uid: int | None = None, gid: int | None = None) -> str:
    """The command that gives a folder, and all below it, to a user; this one if none is named."""
    uid, gid = os.geteuid() if uid is None else uid, os.getegid() if gid is None else gid
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}chown -R {uid}:{gid} {shlex.quote(str(folder))}"


def complaint(text: str) -> str:
    """What a log complains of in one line, with the way out of a full disk.

    It is why PostgreSQL ended, with the detail but without the hint or the time; else the last line that
    complains; else the last line.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = _end(lines)
    if last is None:
        grave = [line for line in lines if _COMPLAINT.search(line) and not _ADVICE.search(line)]
        last = (grave or lines or ["it said nothing"])[-1].rstrip(".")
    return f"{last}; free some space" if os.strerror(errno.ENOSPC) in last else last


def _end(lines: list[str]) -> str | None:
    """The first line that says why PostgreSQL ended, since what comes after follows from it; None if none does."""
    for number, line in enumerate(lines):
        if found := _END.search(line):
            said = line[found.start() :].rstrip(".")
            detail = _DETAIL.search(lines[number + 1]) if number + 1 < len(lines) else None
            return f"{said}: {detail[1].rstrip('.')}" if detail else said
    return None
