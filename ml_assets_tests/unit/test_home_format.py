"""The format of a home: its file, a newer one, which steps are due, and that steps are done once, whoever asks."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

import ml_assets
from ml_assets.errors import Refusal
from ml_assets.lib import home_format
from ml_assets.lib.home_format import FORMAT, DoneStep, HomeFormat
from ml_assets.maintenance import upgrade
from ml_assets.maintenance.upgrade import STEPS, Step, due_steps, open_home
from ml_assets.services.home import FORMAT_FILE, private_home, read_format, write_format
from ml_assets.settings import Settings


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A home of before there were formats, without a store."""
    (tmp_path / "dagster").mkdir()
    return tmp_path


def test_steps_lead_to_every_format_up_to_this_one():
    assert [step.number for step in STEPS] == list(range(1, FORMAT + 1))


def test_a_format_is_read_as_it_was_written():
    told = HomeFormat(0).after(DoneStep(1, "title", "2026-11-30T00:00:00+00:00", "0.1"))
    assert home_format.from_text(home_format.to_text(told), "file") == told
    assert (told.number, told.written_by) == (1, "0.1")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"number": "1", "steps": []}', '{"number": true, "steps": []}', '{"number": -1}'],
)
def test_a_damaged_file_is_refused_with_the_ways_out(former: Path, text: str):
    (former / FORMAT_FILE).write_text(text)
    with pytest.raises(Refusal, match=f"{FORMAT_FILE} does not say .* from a backup"):
        ml_assets.connect(former)


def test_a_new_home_has_this_format_and_an_old_one_lacks_all_steps(tmp_path: Path):
    new, landed, old = (tmp_path / name for name in ("new", "landed", "old"))
    (landed / "landing" / "runs").mkdir(parents=True)  # by somebody who has not run anything yet
    (old / "sqlite").mkdir(parents=True)
    for home in (new, landed, old):
        private_home(home)
    assert [read_format(home).number for home in (new, landed, old)] == [FORMAT, FORMAT, 0]
    assert [due_steps(home) for home in (new, landed)] == [[], []]
    assert due_steps(old) == list(STEPS)
    assert due_steps(tmp_path / "nowhere") == []


def test_two_that_make_a_home_at_once_write_its_format_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Threads, or containers whose process ids are the same: one must not empty what the other has written."""
    sync, others = os.fsync, [HomeFormat(FORMAT, "other")]

    def come_between(file: int) -> None:
        if others:
            write_format(tmp_path, others.pop())
        sync(file)

    monkeypatch.setattr(os, "fsync", come_between)
    write_format(tmp_path, HomeFormat(FORMAT, "one"))
    assert read_format(tmp_path).written_by == "one"
    assert [each.name for each in tmp_path.iterdir()] == [FORMAT_FILE]


def test_a_home_that_a_store_makes_has_this_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whichever is used first: readers of a home that seems to be a former one would be refused."""
    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.sqlite import SQLiteResource

    with SQLiteResource(home=str(tmp_path / "sqlite first")).connect():
        pass
    # The lock and the folder of the engine are real; the engine itself takes seconds.
    monkeypatch.setattr(
        ClickHouseResource, "_connect_chdb", lambda *_, **__: (_ for _ in ()).throw(OSError())
    )
    with pytest.raises(OSError), ClickHouseResource(home=str(tmp_path / "clickhouse first")).client():
        pass
    for home in tmp_path.iterdir():
        assert due_steps(home) == []
        assert open_home(Settings(home=home, read_only=True)) == []
    assert len(list(tmp_path.iterdir())) == 2


def test_a_home_without_stores_is_upgraded_without_a_server(former: Path):
    told: list[str] = []
    done = open_home(Settings(home=former), told.append)
    assert [each.number for each in done] == list(range(1, FORMAT + 1))
    assert len(told) == FORMAT
    assert read_format(former).steps == tuple(done)
    assert open_home(Settings(home=former)) == []
    assert not (former / "services").exists()


def test_a_newer_home_is_refused_everywhere_and_left_alone(former: Path, cli):
    text = json.dumps({"number": FORMAT + 6, "written_by": "9.9", "steps": "as nobody knows yet"})
    (former / FORMAT_FILE).write_text(text)
    sentence = f"has format {FORMAT + 6}, which release 9.9 has made, .* formats up to {FORMAT}: install"
    for light in (False, True):
        with pytest.raises(Refusal, match=sentence):
            ml_assets.connect(former, light=light)
    for words in (
        ["status"],
        ["refresh"],
        ["upgrade"],
        ["upgrade", "--dry-run"],
        ["sql", "sqlite", "SELECT 1"],
    ):
        done = cli(former, *words)
        assert done.returncode == 1
        assert f"has format {FORMAT + 6}" in done.stderr
    assert cli(former, "down").returncode == 0  # which is the first thing that a way out needs
    assert (former / FORMAT_FILE).read_text() == text
    assert {each.name for each in former.iterdir()} == {"dagster", FORMAT_FILE}


def test_a_backup_has_the_format_of_what_it_holds_though_the_home_is_upgraded_meanwhile(former: Path):
    from ml_assets.maintenance.backup import places
    from ml_assets.maintenance.backup.take import format_of_staged

    staged = former / "tmp" / "staged"
    places.stage(former, staged, [former / "tmp"])
    open_home(Settings(home=former))
    assert read_format(former).number == FORMAT
    assert format_of_staged(staged, former) == 0
    places.stage(former, staged, [former / "tmp"])
    assert format_of_staged(staged, former) == FORMAT
    assert format_of_staged(staged, former / "nothing kept") == FORMAT


def test_the_code_location_refuses_a_newer_home_in_the_same_words(former: Path, monkeypatch):
    from ml_assets.definitions import defs

    write_format(former, HomeFormat(FORMAT + 1, "9.9"))
    monkeypatch.setenv("ML_ASSETS_HOME", str(former))
    with pytest.raises(Refusal, match=f"has format {FORMAT + 1}, which release 9.9"):
        defs()


def test_readers_and_a_running_server_of_the_former_release_are_told(former: Path):
    with pytest.raises(Refusal, match="format 0 and is open for reading alone"):
        open_home(Settings(home=former, read_only=True))
    spawn = multiprocessing.get_context("spawn")
    ready, end = spawn.Event(), spawn.Event()
    server = spawn.Process(target=_serve, args=(former, ready, end))
    server.start()
    try:
        assert ready.wait(120)
        with pytest.raises(Refusal, match=rf"`ml-assets up` \(process {server.pid}\) still runs"):
            open_home(Settings(home=former))
    finally:
        end.set()
        server.join()
    assert open_home(Settings(home=former))


def _serve(home: Path, ready, end) -> None:
    import fcntl

    with (home / "up.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        ready.set()
        end.wait()


def test_whoever_has_waited_too_long_for_an_upgrade_is_told_by_which_lock(former: Path):
    from filelock import FileLock

    lock = former / "tmp" / "upgrade.lock"
    lock.parent.mkdir()
    with FileLock(lock), pytest.raises(Refusal, match=rf"more than 0.1 s \(lock {lock}\): wait for it"):
        open_home(Settings(home=former, write_timeout_s=0.1))
    assert read_format(former).number == 0
    assert open_home(Settings(home=former))


def test_one_process_does_a_step_and_the_others_wait_for_it(former: Path):
    spawn = multiprocessing.get_context("spawn")
    every = [spawn.Process(target=_open_slowly, args=(former,)) for _ in range(3)]
    for each in every:
        each.start()
    for each in every:
        each.join()
    assert [each.exitcode for each in every] == [0, 0, 0]
    assert (former / "done").read_text().count("\n") == 1
    assert len(read_format(former).steps) == 1


def _open_slowly(home: Path) -> None:
    def step(settings: Settings) -> None:
        (settings.home / "begun").touch()
        for _ in range(2_000):  # long enough for the others to come meanwhile
            list(settings.home.iterdir())
        with (settings.home / "done").open("a") as file:
            file.write(f"{os.getpid()}\n")

    upgrade.STEPS = (Step(1, "slow", step),)
    open_home(Settings(home=home))
    assert (home / "done").exists()


def test_a_step_that_was_killed_is_done_again_and_the_one_before_is_not(former: Path, monkeypatch):
    monkeypatch.setattr(home_format, "FORMAT", 2)
    spawn = multiprocessing.get_context("spawn")
    killed = spawn.Process(target=_die_within_the_second, args=(former,))
    killed.start()
    killed.join()
    assert killed.exitcode == -9
    assert read_format(former).number == 1
    monkeypatch.setattr(upgrade, "STEPS", _two(former))
    assert [step.number for step in due_steps(former)] == [2]
    done = open_home(Settings(home=former))
    assert [step.number for step in done] == [2]
    assert (former / "first").read_text() == "x"
    assert read_format(former).number == 2


def _append(file: Path) -> None:
    with file.open("a") as opened:
        opened.write("x")


def _two(home: Path, last=lambda settings: None) -> list[Step]:
    return [Step(1, "first", lambda settings: _append(home / "first")), Step(2, "second", last)]


def _die_within_the_second(home: Path) -> None:
    home_format.FORMAT = 2
    upgrade.STEPS = _two(home, lambda settings: os.kill(os.getpid(), 9))
    open_home(Settings(home=home))
