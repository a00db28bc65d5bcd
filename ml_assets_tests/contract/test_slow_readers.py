"""Whoever reads or searches sees one version, however slow, while others write and tidy."""

import threading
from collections import Counter

import pyarrow as pa
import pytest

from ml_assets.contracts import Column
from ml_assets.stores.chroma.collections import ChromaCollection
from ml_assets.stores.chroma.maintenance import rebuild
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.sweep import sweep_all
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE

ROWS = 2_500
"""More than Chroma is asked for at once."""


def written(case, row, version: int, rows: int = ROWS) -> None:
    """Everything overwritten with rows of a version, and nothing of the old ones to be found again."""
    one = row("", count=version, text=f"text of {version}")
    columns = {name: [value] * rows for name, value in one.items()}
    columns["id"] = [str(n) for n in range(rows)]
    columns["vector"] = [[0.5, n / rows, version / 10] for n in range(rows)]
    data = pa.table(columns, case.table().schema)
    with stage(data, case.contract, case.manager.limits) as staged:
        assert case.manager.table_store().write(case.contract, staged).changed


@pytest.mark.parametrize(
    "case",
    ["duckdb", "postgres", "clickhouse", "clickhouse-server", "chroma", "sqlite", "serving"],
    indirect=True,
)
def test_a_reader_that_is_slow_ends_with_the_rows_that_it_began_with(case, row):
    written(case, row, 1)
    reader = case.manager.table_store().read(case.contract, ["count"], WHOLE)
    counts = reader.read_next_batch()["count"].to_pylist()
    written(case, row, 2)
    if case.name == "chroma":
        assert len(entries(case)) == 2 * ROWS
        assert sweep_all(case.manager.table_store()) == {"events": 0}
    counts += reader.read_all()["count"].to_pylist()
    assert counts == [1] * ROWS
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", ["clickhouse", "clickhouse-server"], indirect=True)
@pytest.mark.parametrize("partitioned", [True, False])
def test_a_slow_reader_of_many_blocks_does_not_keep_a_writer_waiting(case, row, partitioned):
    """The engine gives a block after the other, and what it has not given yet may not be replaced under it."""
    rows = 150_000
    columns = (
        Column("id", "int64", nullable=False),
        case.contract.by_name["happened_at"],
        Column("count", "int64"),
    )
    placed = case.contract.partition_column if partitioned else None
    case.change(columns=columns, key=("id",), partition_column=placed)
    moment = row("")["happened_at"]

    def write(version: int) -> None:
        data = {"id": range(rows), "happened_at": [moment] * rows, "count": [version] * rows}
        with stage(pa.table(data, case.table().schema), case.contract, case.manager.limits) as staged:
            assert case.manager.table_store().write(case.contract, staged).changed

    write(1)
    reader = case.manager.table_store().read(case.contract, ["count"], WHOLE)
    counts = Counter(reader.read_next_batch()["count"].to_pylist())
    write(2)
    for batch in reader:
        counts.update(batch["count"].to_pylist())
    assert counts == {1: rows}
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", ["chroma"], indirect=True)
def test_entries_go_as_soon_as_nobody_reads_them(case, row):
    written(case, row, 1, 10)
    reader = case.manager.table_store().read(case.contract, ["count"], WHOLE)
    with case.manager.postgres.connect(write=True) as connection:
        manifest.hold(connection, "events")
        written(case, row, 2, 10)
        assert len(entries(case)) == 20
        assert rebuild(case.manager.chroma, case.manager.postgres, case.contract) is None
        assert case.store.live_state(case.contract).rows == case.store.ledger_state(case.contract).rows == 10
    assert reader.read_all()["count"].to_pylist() == [2] * 10
    with case.manager.postgres.connect(write=True) as connection:
        manifest.hold(connection, "events")  # began after the last commit, so it keeps nothing
        assert sweep_all(case.manager.table_store()) == {"events": 10}
    written(case, row, 3, 10)
    assert len(entries(case)) == 10


@pytest.mark.parametrize("case", ["chroma"], indirect=True)
def test_a_search_finds_live_entries_only(case, row):
    written(case, row, 1, 20)
    for version in (2, 3):
        with case.manager.postgres.connect(write=True) as connection:
            manifest.hold(connection, "events")
            written(case, row, version, 20)
    assert len(entries(case)) == 40
    assert {hit.metadata["count"] for hit in searched(case, 20)} == {3}
    assert len(searched(case, 50)) == 20
    assert [hit.id[:13] for hit in searched(case, 5, {"id": "7", "flag": True})] == ["2026-01-01 7:"]
    assert searched(case, 5, {"count": 1}) == []
    assert len(searched(case, 5, {"document.a": {"$gte": 1}})) == 5
    assert searched(case, 2)[0].document == "text of 3"


@pytest.mark.parametrize("case", ["chroma"], indirect=True)
def test_a_search_during_writes_loses_no_hit_and_mixes_no_versions(case, row):
    written(case, row, 0, 30)
    stop, faults, seen = threading.Event(), [], set()

    def search() -> None:
        try:
            while not stop.is_set():
                seen.add(tuple(hit.metadata["count"] for hit in searched(case, 40)))
        except BaseException as fault:
            faults.append(fault)

    searching = threading.Thread(target=search)
    searching.start()
    try:
        for version in range(1, 7):
            written(case, row, version, 30)
    finally:
        stop.set()
        searching.join()
    assert faults == []
    assert len(seen) > 1
    assert {(len(hits), len(set(hits))) for hits in seen} == {(30, 1)}


@pytest.mark.parametrize("case", ["chroma"], indirect=True)
def test_a_search_that_a_commit_overtakes_is_made_again(case, row, monkeypatch):
    written(case, row, 1, 10)
    original, asked = ChromaCollection.nearest, []

    def overtaken(*given):
        found = original(*given)
        if not asked:
            asked.append(given)
            written(case, row, 2, 10)
        return found

    monkeypatch.setattr(ChromaCollection, "nearest", overtaken)
    assert [hit.metadata["count"] for hit in searched(case, 50)] == [2] * 10


def searched(case, top_k, where=None):
    return case.manager.query_similar(case.contract.asset, [0.5, 0.0, 0.1], top_k, where)


def entries(case) -> list[str]:
    """All that lies in Chroma, live or not."""
    with case.manager.chroma.client() as client:
        return client.get_collection("events", embedding_function=None).get(include=[])["ids"]
