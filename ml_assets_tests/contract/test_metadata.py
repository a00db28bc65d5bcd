"""What a materialization tells."""

from datetime import date

import dagster as dg
import pytest

from ml_assets.tables.staging import measure, table_state

DAY = date(2026, 1, 1)


@pytest.mark.embedded
def test_each_partition_has_its_own_counts(case, row):
    result = case.write(case.table(row("one"), row("two", day=1), row("three", day=1)), days=3)
    events = {
        event.materialization.partition: event.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    counts = {key: metadata["dagster/partition_row_count"].value for key, metadata in events.items()}
    assert counts == {"2026-01-01": 1, "2026-01-02": 2, "2026-01-03": 0}
    assert len({metadata["content_hash"].value for metadata in events.values()}) == 3
    found = events["2026-01-02"]
    assert isinstance(found["dagster/column_schema"].value, dg.TableSchema)
    assert "events" in found["dagster/table_name"].value
    assert found["dagster/storage_kind"].value
    assert found["bytes"].value > 0
    assert found["rows_per_second"].value > 0
    assert "dagster/row_count" not in found
    previews = {key: metadata["preview"].value for key, metadata in events.items()}
    assert all("| id |" in preview for preview in previews.values())
    shown = {key: [i for i in ("one", "two", "three") if f"| {i} |" in p] for key, p in previews.items()}
    assert shown == {"2026-01-01": ["one"], "2026-01-02": ["two", "three"], "2026-01-03": []}


def test_an_unpartitioned_table_has_a_row_count(case, row):
    case.change(partition_column=None)
    result = case.write(case.table(row("one"), row("two")), first=None)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["dagster/row_count"].value == 2
    assert (
        event.materialization.metadata["content_hash"].value
        == case.store.ledger_state(case.contract).content_hash
    )


@pytest.mark.parametrize(
    ("mode", "day"), [("overwrite", DAY), ("upsert_delete", DAY), ("upsert", DAY), ("upsert", None)]
)
def test_counts_and_hash_are_those_of_what_the_slice_holds(case, row, mode, day):
    case.change(mode=mode)
    case.write(case.table(row("one"), row("two"), row("far", day=1)), days=2)
    given = [row("two"), row("new")]
    for _ in ("written", "not written again"):
        result = case.write(case.table(*given), first=day)
        (event,) = result.get_asset_materialization_events()
        told = {name: entry.value for name, entry in event.materialization.metadata.items()}
        kept = [row(identity) for identity in ("one", "two", "new")] if mode == "upsert" else given
        others = [row("far", day=1)] if mode == "upsert" or day else []
        assert case.read().num_rows == len(kept) + len(others)
        rows, count = (kept, "partition_row_count") if day else (kept + others, "row_count")
        state = table_state(measure(case.table(*rows).to_batches(), case.contract))
        assert (told[f"dagster/{count}"], told["content_hash"]) == (state.rows, state.content_hash)
        assert told.get("rows_given") == (len(given) if mode == "upsert" else None)
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def test_equal_content_has_an_equal_hash_in_every_store(case, row):
    """The hash is pinned: the same rows give it in all six stores, today and after an update of a library."""
    case.write(
        case.table(row("one"), row("two", amount=-0.0, document='{"b": 1.0, "a": null}')),
        first=date(2026, 1, 1),
    )
    assert case.store.ledger_state(case.contract).content_hash == "084f102b7bdaa7b7"


NOTED_RUNS = {
    "duckdb": "SELECT DISTINCT run_id FROM lake.ledger.writes",
    "clickhouse": "SELECT DISTINCT run_id FROM write_ledger FINAL",
    "sqlite": "SELECT DISTINCT run_id FROM ml_assets_writes",
}


def noted_runs(case) -> list[tuple[str]]:
    """The runs that the ledger names."""
    manager = case.manager
    match case.name:
        case "duckdb":
            with manager.lake.get_connection() as connection:
                return connection.execute(NOTED_RUNS["duckdb"]).fetchall()
        case "clickhouse":
            with manager.clickhouse.client() as client:
                return [tuple(row) for row in client.query(NOTED_RUNS["clickhouse"]).result_rows]
        case "sqlite":
            with manager.sqlite.connect() as connection:
                return connection.execute(NOTED_RUNS["sqlite"]).fetchall()
        case _:
            with manager.postgres.asking() as ask:
                return list(ask("SELECT DISTINCT run_id FROM ledger.writes"))


def test_the_ledger_names_the_run(case, row):
    result = case.write(case.table(row("one"), row("two")))
    assert noted_runs(case) == [(result.run_id,)]
