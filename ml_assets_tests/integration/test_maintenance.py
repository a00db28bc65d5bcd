"""Maintenance keeps the stores small, and neither readers, writers nor a kill notice it.

The month of hourly overwrites is `python -m benchmarks maintenance`; here it is a few days long.
"""

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from benchmarks.maintenance import FIRST, LIMIT, RETENTION, Site, nights_later, overwritten
from ml_assets import services
from ml_assets.build import build_defs
from ml_assets.contracts import Column, Contract
from ml_assets.errors import IntakeBusy, WriteBusy
from ml_assets.maintenance import maintain, run
from ml_assets.maintenance.leftovers import TemporaryFiles
from ml_assets.resources import store_resources
from ml_assets.settings import Settings
from ml_assets.stores import touched_days
from ml_assets.stores.duckdb import maintenance as lake_maintenance
from ml_assets.stores.duckdb import pins
from ml_assets.stores.duckdb.write import writing
from ml_assets.tables.validation import WHOLE

pytestmark = pytest.mark.embedded_only("works in a home of its own, whose stores are all embedded")

STORES = ("duckdb", "postgres", "clickhouse", "chroma", "sqlite")
DAYS, TIMES = 3, 6


@pytest.fixture
def home(tmp_path: Path):
    yield tmp_path / "home"
    for each in tmp_path.iterdir():
        services.stop_all(each)


def site(store: str, home: Path) -> Site:
    return Site(store, store_resources(Settings(home=home)))


def state(place: Site):
    """Rows and content hash: as the ledger has them, and as they are."""
    store = place.manager.table_store()
    return store.ledger_state(place.contract), store.live_state(place.contract)


@pytest.mark.parametrize("store", STORES)
def test_disk_use_after_many_overwrites_is_that_of_one_load(store: str, home: Path):
    once = site(store, home.with_name("fresh"))
    once.write(range(DAYS), TIMES - 1)
    place = site(store, home)
    overwritten(place, DAYS, TIMES)
    before = state(place)
    nights_later(place)
    assert state(place) == before
    assert before[0] == before[1] == state(once)[0]
    assert place.bytes() <= LIMIT * once.bytes()


def test_the_ledger_of_many_days_stays_one_file(home: Path):
    """Though a few of its lines are replaced every day."""
    place = site("duckdb", home)
    for today in range(8):
        place.write(range(max(0, today - 1), today + 1), today, 20)
        nights_later(place)
    with place.resources["lake"].catalog() as catalog:
        files = catalog.execute(
            "SELECT count(*) FROM ducklake_data_file AS f JOIN ducklake_table USING (table_id) "
            "WHERE table_name = 'writes' AND f.end_snapshot IS NULL"
        ).fetchone()
    assert files == (1,)
    assert state(place)[0] == state(place)[1]


def test_every_store_in_one_round(home: Path):
    resources = store_resources(Settings(home=home))
    for store in STORES:
        Site(store, resources).write([0], 0)
    found = {report.store: report for report in maintain(resources, RETENTION)}
    assert [report.fault for report in found.values()] == [""] * len(found)
    assert set(STORES) < set(found)
    assert all(found[store].bytes_before and found[store].bytes_after for store in STORES)


def test_a_store_that_is_down_is_told_and_the_others_are_kept(home: Path):
    settings = Settings(home=home, clickhouse_url="clickhouse://127.0.0.1:9/")
    found = {report.store: report.fault for report in maintain(store_resources(settings), RETENTION)}
    for part in ("clickhouse", "clickhouse's system tables"):
        assert "ML_ASSETS_CLICKHOUSE_URL" in found.pop(part)
    assert set(found.values()) == {""}


def test_the_asset_reports_bytes(home: Path):
    settings = Settings(home=home)
    Site("duckdb", store_resources(settings)).write([0], 0)
    defs = build_defs(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[dg.AssetKey(["quality", "maintenance"])], instance=instance
        )
    [event] = result.get_asset_materialization_events()
    told: Any = event.materialization.metadata
    assert told["bytes_before"].value > 0
    assert {record.data["store"] for record in told["stores"].records} >= set(STORES)


def test_a_pinned_version_stays_readable(home: Path):
    place = site("duckdb", home)
    lake = place.resources["lake"]
    place.write([0], 0)
    version = pins.pin(lake, "paper").version
    place.write([0], 1)
    place.write([0], 2)
    nights_later(place)

    def versions_at(when: str) -> list[int]:
        with lake.get_connection() as connection:
            found = connection.execute(f"SELECT DISTINCT version FROM lake.features.hourly {when}").fetchall()
        return [found_version for (found_version,) in found]

    assert versions_at(f"AT (VERSION => {version})") == [0]
    assert versions_at("") == [2]
    pins.unpin(lake, "paper")
    nights_later(place)
    assert versions_at("") == [2]
    with pytest.raises(LookupError, match=f"the lake has no version {version}"):
        pins.pin(lake, "again", version)


@pytest.mark.parametrize("store", STORES)
def test_writers_and_readers_do_not_notice(store: str, home: Path):
    place = site(store, home)
    place.write(range(2), 0)
    seen, faults, stop = set(), [], threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                read_all = (
                    place.manager.table_store()
                    .read(place.contract, ["happened_at", "version"], WHOLE)
                    .read_all()
                )
                days = [(moment - FIRST).days for moment in read_all["happened_at"].to_pylist()]
                of_day = {day: [] for day in set(days)}
                for day, version in zip(days, read_all["version"].to_pylist(), strict=True):
                    of_day[day].append(version)
                seen.add(tuple((day, len(v), len(set(v))) for day, v in sorted(of_day.items())))
        except BaseException as fault:
            faults.append(fault)

    def maintain_often() -> None:
        try:
            while not stop.is_set():
                place.let_time_pass(RETENTION.versions + RETENTION.grace)
                place.maintain()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=one) for one in (read, maintain_often)]
    for thread in threads:
        thread.start()
    try:
        for version in range(1, 6):
            place.write([version % 2], version)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    rows_of_a_day = place.manager.table_store().read(place.contract, ["id"], WHOLE).read_all().num_rows // 2
    assert seen == {((0, rows_of_a_day, 1), (1, rows_of_a_day, 1))}
    recorded, measured = state(place)
    assert recorded == measured


def maintain_until_killed(store: str, home: str) -> None:
    site(store, Path(home)).maintain()


@pytest.mark.parametrize("store", ["duckdb", "chroma"])
def test_killed_maintenance_is_finished_by_the_next(store: str, home: Path):
    place = site(store, home)
    overwritten(place, 2, 4)
    before = state(place)
    chance = random.Random(7)  # noqa: S311 - points of time, not secrets
    processes = multiprocessing.get_context("spawn")
    for _ in range(4):
        place.let_time_pass(RETENTION.versions + RETENTION.grace)
        process = processes.Process(target=maintain_until_killed, args=(store, str(home)))
        process.start()
        process.join(1.0 + 1.5 * chance.random())
        process.kill()
        process.join()
        assert state(place) == before
    nights_later(place)
    assert state(place) == before


def test_folders_of_killed_processes_go(home: Path, monkeypatch: pytest.MonkeyPatch):
    resources = store_resources(Settings(home=home))
    left = home / "tmp" / "duckdb" / "0123"
    left.mkdir(parents=True)
    (left / "duckdb_temp_storage.tmp").write_bytes(bytes(1_000))
    files = TemporaryFiles(resources["lake"].home)
    assert run(files, RETENTION).done == ()
    later = time.time() + 2 * RETENTION.grace.total_seconds()
    monkeypatch.setattr("time.time", lambda: later)
    assert run(files, RETENTION).done
    assert not left.exists()


def an_orphan(folder: Path) -> Path:
    """A file such as a killed writer leaves, old enough to be taken for one."""
    (written, *_) = sorted(folder.rglob("ducklake-*.parquet"))
    orphan = written.with_name(f"ducklake-{uuid.uuid4()}.parquet")
    shutil.copy(written, orphan)
    os.utime(orphan, (0, 0))
    return orphan


def test_orphans_of_a_lake_go_and_those_of_a_shared_folder_stay(home: Path):
    place = site("duckdb", home)
    place.write([0], 0)
    lake: Any = store_resources(Settings(home=home))["lake"]
    other = Path(lake.mark(str(uuid.uuid4())))
    other.touch()
    orphan = an_orphan(Path(lake.data))
    (kept,) = [u for u in maintain(store_resources(Settings(home=home)), RETENTION) if u.store == "duckdb"]
    assert orphan.exists()
    assert any("another catalog has its data there" in done for done in kept.done), kept
    other.unlink()
    inner = Path(lake.data) / "inner" / other.name  # a lake within the folder of this one is listed with it
    inner.parent.mkdir()
    inner.touch()
    (kept,) = [u for u in maintain(store_resources(Settings(home=home)), RETENTION) if u.store == "duckdb"]
    assert orphan.exists()
    assert any(str(inner) in done for done in kept.done), kept
    inner.unlink()
    nights_later(place)
    assert not orphan.exists()


def test_writers_of_a_table_with_a_name_of_ours_are_kept_out(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Somebody's asset may be called `intake_runs`, or `maintenance`: whichever lock its writers take counts."""
    resources = store_resources(Settings(home=home))
    lake = resources["lake"].model_copy(update={"write_timeout_s": 0.2})
    postgres = resources["postgres"]
    theirs = [
        Contract(f"duckdb/{name}", "", (Column("id", "int64"),), ())
        for name in ("intake_runs", "maintenance")
    ]
    for contract in theirs:
        names = lake, postgres, contract, contract.schema, contract.table
        with writing(lake, contract), pytest.raises(WriteBusy), lake_maintenance._writer_lock(*names):
            pass
        held = pins.only_one(lake), lake_maintenance._writer_lock(*names)
        with held[0], held[1], pytest.raises(WriteBusy), writing(lake, contract):
            pass
    monkeypatch.setattr(touched_days, "LOCK_WAIT_S", 0.2)
    held = lake_maintenance._writer_lock(lake, postgres, theirs[0], "intake", "intake_runs")
    with held, pytest.raises(IntakeBusy), touched_days.only_one(postgres, "runs"):
        pass


CHURN = """
import os, sys, uuid
while True:
    names = [os.path.join(sys.argv[1], f"ducklake-{uuid.uuid4()}.parquet") for _ in range(20)]
    for name in names:
        open(name, "w").close()
    for name in names:
        os.unlink(name)
"""


def test_files_that_vanish_while_the_folder_is_listed(lake):
    """A listing of DuckDB fails then, every third one of these."""
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE lake.main.one AS SELECT 1 AS n")
        churn = subprocess.Popen([sys.executable, "-c", CHURN, lake.data])
        try:
            for _ in range(30):
                assert list(lake_maintenance._delete_orphans(lake, connection, "'2020-01-01'")) == []
        finally:
            churn.kill()
            churn.wait()
