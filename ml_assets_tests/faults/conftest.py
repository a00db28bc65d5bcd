"""What fault tests share: a disk that is soon full, and a wire that breaks.

small_disk    makes a folder on a small file system of its own; skips where none can be mounted
wire          makes a TCP proxy before a server, which hangs up when it is told to
"""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ml_assets import services


class SmallDisk:
    """A folder whose disk is soon full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, left: int) -> None:
        """Leave so many bytes free."""
        with self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(self.folder).free - left)

    def empty(self) -> None:
        """Make room again."""
        self._filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """Makes a disk of so many megabytes; whatever server has its data there is stopped at the end."""
    mounted: list[Path] = []

    def make(megabytes: int) -> SmallDisk:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return SmallDisk(folder)

    yield make
    for folder in mounted:
        services.stop_all(folder)
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Wire:
    """A TCP proxy that can be told to hang up in the midst of a stream.

    Args:
        target: address of the server, or path of its socket.
    """

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._changed = threading.Lock()
        self._left: int | None = None
        self._open: set[socket.socket] = set()
        self.carried = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def cut_after(self, count: int) -> None:
        """Let so many more bytes pass, in both directions together; then hang up, and refuse everybody."""
        with self._changed:
            self._left = count

    def mend(self) -> None:
        """Let everything pass again."""
        with self._changed:
            self._left = None

    @property
    def is_cut(self) -> bool:
        """Whether it has hung up."""
        with self._changed:
            return self._left is not None and self._left <= 0

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
            if self.is_cut:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
            server.connect(self._target)
            with self._changed:
                self._open |= {client, server}
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # one side is gone, and the other one will notice
            while data := source.recv(16_384):
                passing = data[: self._may_pass(len(data))]
                sink.sendall(passing)
                if len(passing) < len(data):
                    self._hang_up()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _may_pass(self, size: int) -> int:
        with self._changed:
            if self._left is not None:
                size = max(0, min(size, self._left))
                self._left -= size
            self.carried += size
            return size

    def _hang_up(self) -> None:
        with self._changed:
            ends, self._open = self._open, set()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


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
