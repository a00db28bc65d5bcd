"""What a materialization tells."""

from datetime import date

import dagster as dg


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
    assert "| id |" in found["preview"].value
    assert "dagster/row_count" not in found


def test_an_unpartitioned_table_has_a_row_count(case, row):
    case.change(partition_column=None)
    result = case.write(case.table(row("one"), row("two")), first=None)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["dagster/row_count"].value == 2
    assert event.materialization.metadata["content_hash"].value == case.recorded(case.contract).content_hash


def test_equal_content_has_an_equal_hash_in_every_store(case, row):
    """The hash is pinned: the same rows give it in all six stores, today and after an update of a library."""
    case.write(
        case.table(row("one"), row("two", amount=-0.0, document='{"b": 1.0, "a": null}')),
        first=date(2026, 1, 1),
    )
    assert case.recorded(case.contract).content_hash == "29de078a25a97910"
