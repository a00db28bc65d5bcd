"""Who may open an engine that lets in one process only: with what is no engine, so that only its door is tested."""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_assets.errors import StoreBusy
from ml_assets.resources.engine import EmbeddedEngine

DEADLINE_S = 60.0


class Door:
    """What is open as long as the engine is.

    Args:
        fault: raised when it is closed.
    """

    def __init__(self, fault: Exception | None = None) -> None:
        self.closed, self._fault = False, fault

    def close(self) -> None:
        self.closed = True
        if self._fault:
            raise self._fault


def made(lingers_s: float = DEADLINE_S) -> EmbeddedEngine[Door]:
    return EmbeddedEngine("The engine", "door", "ML_ASSETS_DOOR_URL", lingers_s)


def used(engine: EmbeddedEngine[Door], path: Path, timeout_s: float = DEADLINE_S) -> Door:
    """Open it and leave it."""
    with engine.opened(path, timeout_s, "test", Door) as door:
        return door


def is_locked(path: Path) -> bool:
    with path.with_name(f"{path.name}.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_it_stays_open_between_two_uses_and_for_a_while_only(path):
    engine = made()
    first = used(engine, path)
    assert is_locked(path)
    assert used(engine, path) is first
    short = made(lingers_s=0.0)
    engine.close_if_idle()
    assert first.closed
    second = used(short, path)
    wait_for(lambda: second.closed and not is_locked(path))


def test_it_makes_way_for_whoever_waits(path):
    one, other = made(), made()  # as if each were another process's
    first = used(one, path)
    second = used(other, path)
    assert first.closed
    assert not path.with_name("folder.wanted").exists(), "who came in does not wait any more"
    assert not second.closed
    assert is_locked(path)
    other.close_if_idle()


def test_a_folder_that_is_made_anew_is_opened_anew(path):
    """Its number may be that of the one before."""
    engine = made()
    first = used(engine, path)
    path.rmdir()
    path.mkdir()
    assert used(engine, path) is not first
    assert first.closed
    engine.close_if_idle()


def test_after_the_interpreter_has_begun_to_end_it_is_closed_by_its_last_user(path):
    engine = made()
    with engine.opened(path, DEADLINE_S, "test", Door) as door:
        engine._end()
        assert not door.closed
        before = threading.active_count()
    assert door.closed
    assert threading.active_count() == before
    assert not is_locked(path)


def test_it_is_closed_where_no_thread_can_begin(path, monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    engine = made()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert used(engine, path).closed
    monkeypatch.undo()
    door = used(engine, path)
    assert not door.closed
    engine.close_if_idle()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_that_cannot_be_closed_makes_way_the_next_time(path):
    engine = made(lingers_s=0.0)
    with engine.opened(path, DEADLINE_S, "test", lambda: Door(OSError("the disk is full"))):
        pass
    wait_for(lambda: not is_locked(path))
    wait_for(lambda: not engine._watching)
    door = used(engine, path)
    wait_for(lambda: door.closed)


def test_it_is_at_rest_for_everybody(path):
    engine, other = made(), made()
    first = used(engine, path)
    with other.at_rest(path, DEADLINE_S):
        assert first.closed
        for each in (engine, other):
            with pytest.raises(StoreBusy, match=r"The engine at .* has been held by another process"):
                used(each, path, timeout_s=0.1)
    assert not used(engine, path).closed
    with engine.opened(path, DEADLINE_S, "test", Door), pytest.raises(StoreBusy), engine.at_rest(path, 0.1):
        pass
    engine.close_if_idle()


def test_a_forked_child_leaves_it_to_its_parent(path):
    engine = made()
    with engine.opened(path, DEADLINE_S, "test", Door):
        child = os.fork()
        if not child:
            try:
                engine._leave()
                engine.close_if_idle()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert is_locked(path)
        assert path.with_name("folder.holder").exists()
    engine.close_if_idle()
