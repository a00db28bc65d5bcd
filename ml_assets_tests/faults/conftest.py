"""What fault tests share: a table in each store, a small disk, and a wire that can be cut.

small_disk    folder on a file system of 32 MB; the test is skipped where none can be mounted
wire          makes a TCP proxy before a server, which hangs up when it is told to
"""

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

DISK_MB = 32


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose disk is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only a system that lets us mount a small disk can show a full one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill_up() -> Callable[[Path, int], Path]:
    """Fills a disk until so many bytes are left; returns the file to delete."""

    def fill(folder: Path, left: int) -> Path:
        filler = folder / "filler"
        filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - left)))
        assert shutil.disk_usage(folder).free <= left + 2**16
        return filler

    return fill


class Wire:
    """A TCP proxy. `cut_after(n)` hangs up on both sides once n more bytes have gone to the server."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._left: int | None = None
        self._changed = threading.Lock()
        self._open: set[socket.socket] = set()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def cut_after(self, sent: int) -> None:
        """From now on let so many bytes pass to the server, then refuse everything until `mend`."""
        with self._changed:
            self._left = sent

    def mend(self) -> None:
        """Let everything pass again."""
        with self._changed:
            self._left = None

    def close(self) -> None:
        """Hang up for good."""
        self._listener.close()
        self._hang_up()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                refused = self._left is not None and self._left <= 0
            if refused:
                client.close()
                continue
            family = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
            server = socket.socket(family)
            server.connect(self._target)
            self._open |= {client, server}
            for source, sink, counted in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._carry, args=(source, sink, counted), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(16_384):
                if counted and not self._passes(len(data)):
                    self._hang_up()
                    return
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _passes(self, size: int) -> bool:
        with self._changed:
            if self._left is None:
                return True
            was, self._left = self._left, self._left - size
            if was > 0 >= self._left:
                self.cuts += 1
            return self._left > 0

    def _hang_up(self) -> None:
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()


@pytest.fixture
def wire() -> Iterator[Callable[[tuple[str, int] | str], Wire]]:
    """Makes proxies, and closes them at the end."""
    made: list[Wire] = []

    def make(target: tuple[str, int] | str) -> Wire:
        made.append(Wire(target))
        return made[-1]

    yield make
    for each in made:
        each.close()
