"""Backups of a home that is written all the time: each restores to one state of all stores, at another path.

What a backup keeps and refuses is tested without stores in unit/test_backup_folder.py.
"""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.maintenance import Site
from ml_assets import services
from ml_assets.contracts import STREAMS
from ml_assets.errors import Refusal
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.lib.backup import Manifest
from ml_assets.maintenance import maintain
from ml_assets.maintenance.backup import BackupFolder, back_up, postgres, restore
from ml_assets.maintenance.backup.postgres import PROJECT, Dump
from ml_assets.maintenance.status import stores_status
from ml_assets.operations.light import LightStack
from ml_assets.resources import store_resources
from ml_assets.settings import Settings
from ml_assets.tables.pause import writing
from ml_assets.tables.store import Retention
from ml_assets.tables.validation import WHOLE
from ml_assets_tests.scale import BACKUPS

pytestmark = pytest.mark.timeout(3600)

STORES = ("postgres", "duckdb", "chroma", "sqlite", "clickhouse")
"""In the order in which the writer writes them."""

NOTHING_KEPT = Retention(timedelta(0), timedelta(0))
BOUNDS = Bounds(date(2014, 1, 1), datetime.now().astimezone())
PATIENCE_S = 300


def quiet(*_: object) -> None:
    """Progress that nobody sees."""


def write_for_ever(home: str) -> None:
    """Overwrite a day in each store, take in a file, record a run and clean up as far as possible, again and again."""
    settings = Settings(home=Path(home))
    resources = store_resources(settings)
    sites = [Site(store, resources) for store in STORES]
    light = LightStack(settings)
    for version in itertools.count():
        for site in sites:
            with writing(home):
                site.write([0], version)
        take_in(settings, f"{version}")
        run = light.experiments.create("mine", model_name="cats", metrics={"version": version})
        light.artifacts.add(run, settings.landing / "metrics" / f"{version}.jsonl", name="model")
        maintain(resources, NOTHING_KEPT)
        (Path(home) / "rounds").write_text(str(version + 1))


def take_in(settings: Settings, name: str = "") -> None:
    """Land a file of one metric, if a name is given, and take in what is there."""
    landing, made = settings.landing / "metrics", store_resources(settings)
    landing.mkdir(parents=True, exist_ok=True)
    if name:
        row = {"run_id": name, "key": "loss", "step": 1, "value": 1.0, "timestamp": "2026-03-01T08:00:00Z"}
        file = landing / f"{name}.jsonl"
        file.write_text(json.dumps(row))
        os.utime(file, (1e9, 1e9))  # complete for long
    listing = list_files(landing, STREAMS["metrics"].whole_files)
    take_in_files("metrics", listing, made["lake"], made["postgres"], BOUNDS)


def wait_for(state: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not state():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mla-bk-"))
    yield made
    for home in made.iterdir():
        services.stop_all(home)
    shutil.rmtree(made)


class Writer:
    """A process that writes to a home all the time.

    Args:
        home: of the process.
        process: which `write_for_ever`.
    """

    def __init__(self, home: Path, process: Any) -> None:
        self._rounds = home / "rounds"
        self.process = process

    def rounds(self) -> int:
        """How often it has come around."""
        assert self.process.is_alive()
        return int(self._rounds.read_text() or 0) if self._rounds.exists() else 0

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Let it wait, wherever it stands, while something is restored that is none of its business."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def written(home: Path) -> Iterator[Writer]:
    """A process that writes to a home all the time."""
    spawn = multiprocessing.get_context("spawn")
    writer = spawn.Process(target=write_for_ever, args=(str(home),), daemon=True)
    writer.start()
    try:
        yield Writer(home, writer)
    finally:
        writer.kill()
        writer.join()


def versions(settings: Settings) -> list[int]:
    """The version that each store holds, of the one day that is written, in the order in which they are written."""
    made, found = store_resources(settings), []
    for store in STORES:
        site = Site(store, made)
        reader = site.manager.table_store().read(site.contract, ["version"], WHOLE)
        held = {row["version"] for batch in reader for row in batch.to_pylist()}
        assert len(held) == 1, (store, held)
        found += held
    return found


def taken_in(settings: Settings) -> tuple[int, int]:
    """Rows of metrics in the lake of contents that are live, and how many of them are different ones."""
    made = store_resources(settings)
    with made["postgres"].connect() as connection:
        live = connection.execute(
            "SELECT unit_hash FROM ledger.units WHERE stream = 'metrics' AND state = 'live'"
        ).fetchall()
    with made["lake"].get_connection() as connection:
        ((rows, different),) = connection.execute(
            "SELECT count(*), count(DISTINCT unit_hash) FROM intake.intake_metrics WHERE unit_hash IN "
            "(SELECT unnest($hashes::VARCHAR[]))",
            {"hashes": [each for (each,) in live]},
        ).fetchall()
    assert different == len(live)
    return rows, different


def look(settings: Settings, manifest: Manifest) -> None:
    """Hold a restored home against what one state of the written one can be."""
    held = versions(settings)
    # Each store is written after the one before it, so that none is ahead of it, and the last at most one behind.
    assert held == sorted(held, reverse=True) and held[0] - held[-1] <= 1, held
    take_in(settings)  # finishes what was under way
    rows, different = taken_in(settings)
    assert rows == different == len(list((settings.landing / "metrics").iterdir()))
    assert manifest.tables["postgres/hourly"].rows == 2_000
    light = LightStack(settings)
    files = light.artifacts.list()
    assert files
    for file in files:
        assert light.artifacts.path(file["run_id"], file["path"]).exists()  # its content was hashed, too


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_backups_under_constant_writes_restore_to_one_state(cli_process, folder: Path):
    home, backups = folder / "home", BackupFolder(folder / "backups")
    with written(home) as writer:
        wait_for(lambda: writer.rounds() > 0)
        for number in range(BACKUPS):
            before = writer.rounds()
            made = back_up(Settings(home=home), backups, quiet, keep=2)
            again = Settings(home=folder / f"r{number}")
            if number == 0:
                _kill_a_backup(cli_process, home, backups)
            with writer.resting():
                if number == BACKUPS - 1:
                    _kill_a_restore(again.home, backups)
                restored = restore(again, backups, quiet, made.id)
                assert (restored.id, restored.tables) == (made.id, len(made.manifest.tables))
                look(again, made.manifest)
                services.stop_all(again.home)
                shutil.rmtree(again.home)
            wait_for(lambda before=before: writer.rounds() > before)  # it goes on
    assert len(backups.ids()) == 2


def _command(home: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "ML_ASSETS_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-m", "ml_assets.cli", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _kill_a_backup(cli_process: Any, home: Path, backups: BackupFolder) -> None:
    """Kill one while it writes; the earlier ones are whole, and the next one clears up."""
    killed = _command(home, "backup", str(backups.path))
    wait_for(lambda: any(backups.tmp.iterdir()) or killed.poll() is not None)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    verified = cli_process(home, "backup", str(backups.path), "--verify", "--json")
    assert verified.returncode == 0, verified.stderr
    assert set(json.loads(verified.stdout)["backups"]) == set(backups.ids())


def _kill_a_restore(home: Path, backups: BackupFolder) -> None:
    """Kill one when it has begun; there is no home, and a folder that says what it is."""
    draft = home.with_name(f"{home.name}.restoring")
    killed = _command(home, "restore", str(backups.path))
    wait_for(lambda: (draft / "services").exists() or killed.poll() is not None)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not home.exists()
    assert str(home) in (draft / "UNFINISHED-RESTORE.txt").read_text()


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_what_is_damaged_or_in_the_way_is_refused_before_anything_is_written(cli, folder: Path):
    backups, target = BackupFolder(folder / "backups"), folder / "target"
    newest = backups.ids()[-1]
    manifest = backups.read(newest)
    file = backups.object(next(iter(manifest.objects)))
    good = file.read_bytes()
    file.unlink()
    for content in (None, good[:-1], bytes([good[0] ^ 1]) + good[1:]):
        if content is not None:
            file.write_bytes(content)
        done = cli(target, "restore", str(backups.path))
        assert done.returncode == 1
        assert "is damaged, and nothing was written" in done.stderr
        assert not target.exists() and not target.with_name("target.restoring").exists()
        assert cli(target, "backup", str(backups.path), "--verify").returncode == 1
    file.write_bytes(good)
    kept = backups.path / "backups" / f"{newest}.json"
    kept.write_bytes(kept.read_bytes().replace(b'"rows": 2000', b'"rows": 2001'))
    done = cli(target, "restore", str(backups.path))
    assert "was changed or damaged" in done.stderr
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(Refusal, match="is not empty"):
        restore(Settings(home=target), backups, quiet, backups.ids()[0])
    assert [each.name for each in target.iterdir()] == ["mine"]


@pytest.mark.embedded_only("needs a pg_dump of the server's release that speaks TLS")
def test_servers_are_named_and_postgresql_is_dumped_through_its_url(
    settings: Settings, tmp_path: Path, _databases: Any, _catalogs: Any, monkeypatch: pytest.MonkeyPatch
):
    made = store_resources(settings)
    for store in ("postgres", "duckdb", "sqlite"):
        Site(store, made).write([0], 7)
    backups = BackupFolder(tmp_path / "backups")
    elsewhere = ["duckdb", "postgres"]

    class Late(Dump):
        """A dump that sees nothing before somebody on another machine has written once more."""

        def __init__(self, *given: Any) -> None:
            self._given = given

        def wait_until_it_sees(self) -> None:
            if self._given[0] == PROJECT and elsewhere:
                Site(elsewhere.pop(), made).write([0], 8)
            super().__init__(*self._given)
            super().wait_until_it_sees()

    monkeypatch.setattr(postgres, "Dump", Late)
    taken = back_up(settings, backups, quiet)
    assert {each.what for each in taken.manifest.left_out} >= {"chroma", "redis", "roles of PostgreSQL"}
    assert all(each.command for each in taken.manifest.left_out)
    with _databases.lend() as database, _catalogs.lend() as catalog:
        again = settings.model_copy(
            update={"home": tmp_path / "again", "postgres_url": database, "lake_url": catalog}
        )
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE TABLE mine (n INTEGER)")
            with pytest.raises(Refusal, match="holds 1 table"):
                restore(again, backups, quiet)
            connection.execute("DROP TABLE mine")
        restore(again, backups, quiet)
        status, differences = stores_status(again, verify=True)
    assert not differences
    assert not elsewhere
    assert [status[store]["tables"]["hourly"]["rows"] for store in ("postgres", "duckdb", "sqlite")] == [
        2_000
    ] * 3
