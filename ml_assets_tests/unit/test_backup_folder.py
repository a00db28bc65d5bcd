"""Backups without any store: manifests, contents, damage, what is kept and what goes, and the pause of writers."""

import fcntl
import json
import os
import shutil
import threading
import time
from dataclasses import fields, replace
from pathlib import Path
from urllib.parse import quote

import pytest

from ml_assets.cli.backup import listed
from ml_assets.errors import Refusal
from ml_assets.lib import backup as manifests
from ml_assets.lib.backup import Entry, LeftOut, Manifest, TableFact
from ml_assets.maintenance.backup import places, restore
from ml_assets.maintenance.backup.folder import BackupFolder
from ml_assets.maintenance.backup.restore import _Draft, _draft
from ml_assets.settings import Settings
from ml_assets.tables.pause import GATE, TURNSTILE, paused, writing


def quiet(*_: object) -> None:
    """Progress that nobody sees."""


@pytest.fixture
def folder(tmp_path: Path) -> BackupFolder:
    made = BackupFolder(tmp_path / "backups")
    made.prepare()
    return made


def kept(folder: BackupFolder, home: Path, minute: int = 0) -> str:
    """A backup of a folder of files; its id."""
    entries = []
    for file in sorted(each for each in home.rglob("*") if each.is_file()):
        put = folder.put(file)
        entries.append(Entry("home", file.relative_to(home).as_posix(), put.sha256, put.bytes))
    return folder.publish(manifest(minute, entries))


def manifest(minute: int = 0, entries: list[Entry] | None = None) -> Manifest:
    return Manifest(
        f"2026-11-29T20:{minute:02}:00+00:00",
        "/home",
        tables={"postgres/t": TableFact(3, "abc")},
        left_out=(LeftOut("redis", "it is a server.", "redis-cli --rdb FILE"),),
        under_way=("1 run had not ended.",),
        entries=tuple(entries or ()),
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    (made / "lake").mkdir(parents=True)
    (made / "lake" / "a.parquet").write_bytes(b"a" * 1000)
    (made / "same.parquet").write_bytes(b"a" * 1000)
    (made / "b.csv").write_text("b")
    return made


def test_a_manifest_is_read_as_it_was_written():
    written = manifest(entries=[Entry("home", "a", "0" * 64, 3), Entry("home", "b", link="../c")])
    assert manifests.from_bytes(manifests.to_bytes(written), manifests.new_id(written)) == written


@pytest.mark.parametrize(
    "old, new", [(b'"rows": 3', b'"rows": 4'), (b"/home", b"/hame"), (b'"abc"', b'"abd"')]
)
def test_a_manifest_that_was_edited_is_refused(old: bytes, new: bytes):
    written = manifest()
    edited = manifests.to_bytes(written).replace(old, new)
    with pytest.raises(Refusal, match="changed or damaged"):
        manifests.from_bytes(edited, manifests.new_id(written))


@pytest.mark.parametrize(
    "place, path",
    [
        ("home", "../outside"),
        ("home", "/etc/passwd"),
        ("home", "a/../../b"),
        ("postgres/../../..", "b"),
        ("home", ""),
    ],
)
def test_a_path_that_leads_out_of_the_home_is_refused(place: str, path: str):
    written = manifest(entries=[Entry(place, path)])
    with pytest.raises(Refusal, match="outside of the home"):
        manifests.from_bytes(manifests.to_bytes(written), manifests.new_id(written))


def test_a_manifest_of_a_newer_release_is_refused():
    newer = json.dumps(json.loads(manifests.to_bytes(manifest())) | {"format": manifests.FORMAT + 1}).encode()
    name = f"20261129T200000Z-{manifests._digest(newer)}"
    with pytest.raises(Refusal, match="newer release"):
        manifests.from_bytes(newer, name)


def test_a_field_that_the_release_before_does_not_know_has_raised_the_format():
    """It reads no other fields than it knows, and would end in a traceback in place of the sentence."""
    first = {
        "made_at",
        "home",
        "versions",
        "modes",
        "databases",
        "tables",
        "left_out",
        "under_way",
        "paused_s",
    }
    added = {1: {*first, "entries", "format"}, 2: {"home_format"}}
    assert {each.name for each in fields(Manifest)} == set().union(*added.values())
    assert max(added) == manifests.FORMAT


def test_which_backup_is_meant():
    ids = ["20261129T200000Z-aaaaaaaaaaaa", "20261128T200000Z-bbbbbbbbbbbb", "notes"]
    assert manifests.chosen(ids, None, "x") == ids[0]
    assert manifests.chosen(ids, "20261128", "x") == ids[1]
    for wanted, told in (("2026", "2 backups"), ("2025", "There is no backup '2025'"), ("", "no backup ''")):
        with pytest.raises(Refusal, match=told):
            manifests.chosen(ids, wanted, "x")
    with pytest.raises(Refusal, match="There is no backup in x"):
        manifests.chosen([], None, "x")


def test_how_many_backups_stay():
    ids = [f"2026112{day}T200000Z-aaaaaaaaaaaa" for day in range(5)]
    assert manifests.outdated(ids, 2) == ids[:3]
    assert manifests.outdated(ids, 9) == []
    with pytest.raises(Refusal, match="at least 1"):
        manifests.outdated(ids, 0)


def test_only_backups_of_the_same_home_make_way(folder: BackupFolder):
    mine = [folder.publish(manifest(minute)) for minute in (1, 2, 3)]
    other = folder.publish(replace(manifest(0), home="/elsewhere"))
    assert folder.outdated("/home", 1) == mine[:2]
    assert folder.outdated("/elsewhere", 1) == []
    assert folder.ids() == [other, *mine]


def test_in_what_a_restored_home_differs():
    wanted = {f"sqlite/{name}": TableFact(3, "x") for name in "abcd"} | {"chroma/e": TableFact(1, "x")}
    found = {"sqlite/a": TableFact(3, "x"), "sqlite/b": TableFact(2, "x"), "sqlite/c": TableFact(3, "y")}
    assert manifests.table_differences(wanted, found, ["chroma"]) == [
        "sqlite/b had 3 rows and has 2.",
        "sqlite/c has other values than it had: y, not x.",
        "sqlite/d had 3 rows and is not there.",
    ]


def test_equal_contents_are_kept_once_and_a_second_backup_adds_nothing(folder: BackupFolder, home: Path):
    first = kept(folder, home)
    objects = sorted(folder._objects.glob("*/*"))
    assert len(objects) == 2
    second = kept(folder, home, 1)
    assert folder.ids() == sorted([first, second])
    assert sorted(folder._objects.glob("*/*")) == objects
    assert folder.damage(folder.read(second), quiet) == []


def test_what_no_backup_names_goes_and_the_rest_stays_whole(folder: BackupFolder, home: Path):
    first = kept(folder, home)
    (home / "b.csv").write_text("something else")
    second = kept(folder, home, 1)
    folder.remove([first])
    (folder.tmp / "half").write_text("of a killed backup")
    assert folder.sweep() == (1, 1)
    assert list(folder.tmp.iterdir()) == []
    assert folder.damage(folder.read(second), quiet) == []


def test_nothing_goes_where_a_manifest_cannot_be_read(folder: BackupFolder, home: Path):
    first, second = kept(folder, home), kept(folder, home, 1)
    (folder.path / "backups" / f"{first}.json").write_bytes(b"{}")
    folder.remove([second])
    with pytest.raises(Refusal, match="changed or damaged"):
        folder.sweep()
    with pytest.raises(Refusal, match="changed or damaged"):
        folder.require_readable()
    assert len(list(folder._objects.glob("*/*"))) == 2


def test_one_that_cannot_be_read_hides_no_other_in_the_list(folder: BackupFolder, capsys):
    first, second = folder.publish(manifest(1)), folder.publish(manifest(2))
    (folder.path / "backups" / f"{first}.json").write_bytes(b"{}")
    listed(folder.path, as_json=True)
    said = capsys.readouterr()
    assert [each["id"] for each in json.loads(said.out)] == [second]
    assert first in said.err and "or remove it" in said.err


def missing(file: Path) -> None:
    file.unlink()


def shortened(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [missing, shortened, flipped])
def test_every_damage_is_found(damage, folder: BackupFolder, home: Path):
    made = folder.read(kept(folder, home))
    for sha256 in made.objects:
        file = folder.object(sha256)
        good = file.read_bytes()
        damage(file)
        (told,) = folder.damage(made, quiet)
        assert str(file) in told
        file.unlink(missing_ok=True)
        file.write_bytes(good)
    assert folder.damage(made, quiet) == []


@pytest.mark.parametrize("damage", [missing, shortened])
def test_the_next_backup_mends_what_is_missing_or_short(damage, folder: BackupFolder, home: Path):
    made = folder.read(kept(folder, home))
    damage(folder.object(next(iter(made.objects))))
    kept(folder, home, 1)
    assert folder.damage(made, quiet) == []


def test_a_file_that_grows_is_kept_as_it_was_when_it_was_opened(folder: BackupFolder, tmp_path: Path):
    file = tmp_path / "log"
    file.write_text("one")
    before = file.stat()
    file.write_text("one two")
    assert folder._copied(file, before.st_size).bytes == 3


def test_a_content_that_was_damaged_since_is_not_restored(folder: BackupFolder, home: Path, tmp_path: Path):
    (entry, *_) = folder.read(kept(folder, home)).entries
    flipped(folder.object(entry.sha256))
    with pytest.raises(Refusal, match="damaged since"):
        folder.fetch(entry, tmp_path / "target")


def test_a_lake_on_a_server_beside_an_embedded_postgresql_is_not_taken_for_the_restored_one(
    folder: BackupFolder, tmp_path: Path
):
    folder.publish(replace(manifest(), databases={"lake": "postgres/lake"}))
    settings = Settings(home=tmp_path / "home", lake_url="postgresql://127.0.0.1:1/lake")
    with pytest.raises(Refusal, match="ML_ASSETS_LAKE_URL leads to a server"):
        restore(settings, folder, quiet)
    assert not list(tmp_path.glob("home*"))


def test_no_file_is_written_through_a_link(folder: BackupFolder, home: Path, tmp_path: Path):
    put = folder.put(home / "b.csv")
    entries = [Entry("home", "a", link=str(tmp_path)), Entry("home", "a/b", put.sha256, put.bytes)]
    (tmp_path / "new").mkdir()
    draft = _Draft(tmp_path / "new", Settings(home=tmp_path / "h"), folder, manifest(0, entries), quiet)
    with pytest.raises(FileExistsError):  # where the link belongs is what was written
        draft.write_files()
    assert not (tmp_path / "b").exists()


def test_a_restore_begins_anew_where_one_was_killed_whose_lake_lies_elsewhere(
    folder: BackupFolder, home: Path, tmp_path: Path
):
    put = folder.put(home / "b.csv")
    wanted = manifest(0, [Entry("lake", "b.csv", put.sha256, put.bytes)])
    settings = Settings(home=tmp_path / "h", lake_data=str(tmp_path / "l"))
    half = tmp_path / "l.restoring" / "b.csv"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), _draft(settings.home, "id") as draft:
            _Draft(draft, settings, folder, wanted, quiet).write_files()
            assert half.read_text() == "b"
            raise KeyboardInterrupt
    shutil.rmtree(tmp_path / "h.restoring")
    with pytest.raises(Refusal, match="is in the way"), _draft(settings.home, "id") as draft:
        _Draft(draft, settings, folder, wanted, quiet)
    assert half.exists()


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Refusal, match="something else"):
        BackupFolder(tmp_path).prepare()
    with pytest.raises(Refusal, match="no folder of backups"):
        BackupFolder(tmp_path).require()


def test_one_backup_at_a_time(folder: BackupFolder):
    with folder.locked(), pytest.raises(Refusal, match="Another process"), folder.locked():
        pass


def test_what_of_a_home_is_backed_up(tmp_path: Path):
    import sqlite3

    home, stage = tmp_path / "home", tmp_path / "stage"
    for name in ("tmp", "landing/runs", "dagster", "artifacts", "my vectors"):
        (home / name).mkdir(parents=True)
    copies = ("my vectors/segment", "my vectors.lock")  # of Qdrant, which PostgreSQL fills again
    for name in ("tmp/x", "up.json", "artifacts/model.db", "landing/a.csv", *copies):
        (home / name).write_text(name)
    (home / "dagster" / "dagster.yaml").symlink_to("/elsewhere/dagster.yaml")
    (home / "shared").symlink_to(tmp_path)
    writer = sqlite3.connect(home / "dagster" / "runs.db")
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t AS SELECT 1 AS n")
    writer.commit()  # which is in the write-ahead log alone
    settings = Settings(home=home, qdrant_url=f"edge://{quote(str(home))}/my%20vectors")
    found = places.stage(home, stage, places.runtime_files(settings))
    writer.close()
    assert {each.path: each.kind for each in found} == {
        "artifacts/model.db": "file",
        "dagster/dagster.yaml": "link",
        "dagster/runs.db": "database",
        "landing/a.csv": "file",
        "landing/runs": "folder",
        "shared": "link",
    }
    with sqlite3.connect(stage / "dagster" / "runs.db") as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(1,)]
    assert (stage / "landing" / "a.csv").samefile(home / "landing" / "a.csv")
    assert [each.what for each in places.linked_folders(found)] == ["shared"]


def test_a_backup_waits_for_a_write_and_writes_wait_for_a_backup(tmp_path: Path):
    began, go, order = threading.Event(), threading.Event(), []

    def write(name: str) -> None:
        with writing(tmp_path):
            began.set()
            go.wait()
            with writing(
                tmp_path
            ):  # within a write, another one does not wait for the backup that waits for it
                order.append(name)

    first = threading.Thread(target=write, args=["before"])
    first.start()
    began.wait()
    with pytest.raises(Refusal, match="has been writing"), paused(tmp_path, 0):
        pass
    threading.Timer(0.05, go.set).start()
    with paused(tmp_path, 60):
        first.join()
        second = threading.Thread(target=write, args=["after"])
        second.start()
        order.append("backup")
    second.join()
    assert order == ["before", "backup", "after"]


def test_who_writes_where_there_is_no_home_waits_for_nobody(tmp_path: Path):
    with writing(tmp_path / "none"):
        assert not (tmp_path / "none").exists()
    with pytest.raises(Refusal, match="cannot be written"), paused(tmp_path / "none", 0):
        pass


def held(file: Path) -> bool:
    """Whether somebody has a lock on it for himself."""
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_who_holds_what_others_wait_for_goes_before_a_backup_that_waits_for_them(tmp_path: Path):
    passed, order = threading.Event(), []

    def back_up() -> None:
        with paused(tmp_path, 60):
            order.append("backup")

    def write() -> None:
        with writing(tmp_path, first=True):
            order.append("first")
        passed.set()

    (tmp_path / GATE).touch()
    with (tmp_path / GATE).open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as a write of another process, which waits for what `write` holds
        threads = [threading.Thread(target=each, daemon=True) for each in (back_up, write)]
        threads[0].start()
        deadline = time.monotonic() + 60
        while not ((tmp_path / TURNSTILE).exists() and held(tmp_path / TURNSTILE)):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        threads[1].start()
        assert passed.wait(60)
    for thread in threads:
        thread.join()
    assert order == ["first", "backup"]


def test_a_wait_that_is_interrupted_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waited: list[int] = []

    def interrupted(file: int, _how: int) -> None:
        waited.append(os.fstat(file).st_ino)
        raise KeyboardInterrupt

    close, closed = os.close, []
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", interrupted)
        patched.setattr(os, "close", lambda file: (closed.append(os.fstat(file).st_ino), close(file)))
        for first in (False, True):
            with pytest.raises(KeyboardInterrupt), writing(tmp_path, first):
                pass
    ours = {file.stat().st_ino for file in tmp_path.iterdir()}
    assert waited == [each for each in closed if each in ours] and len(waited) == 2
    with paused(tmp_path, 0):
        pass


def test_files_that_somebody_else_has_made_are_waited_for_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As who is not root meets those of root; the tests may be run by root, who meets nothing of the kind."""
    opened = os.open

    def of_root(file: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR or hidden:
            raise PermissionError(13, "Permission denied")
        return opened(file, flags, mode)

    hidden = False
    for name in (TURNSTILE, GATE):
        (tmp_path / name).touch()
    monkeypatch.setattr(os, "open", of_root)
    with writing(tmp_path), pytest.raises(Refusal, match="has been writing"), paused(tmp_path, 0):
        pass
    hidden = True
    with pytest.raises(Refusal, match="cannot be opened"), writing(tmp_path):
        pass
    (tmp_path / TURNSTILE).unlink()
    (tmp_path / GATE).unlink()
    with writing(tmp_path):  # a folder that cannot be written
        pass
