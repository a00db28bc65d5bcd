"""Tables of a team that look back, in the real graph: a late row has exactly the days rebuilt that read it."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.cli.refresh import Refresher
from ml_assets.contracts import Column, Contract
from ml_assets.contracts.feature_files import pin_of
from ml_assets.contracts.text import pinned_text
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.resources import store_resources
from ml_assets.settings import Settings

DAY = date(2026, 3, 10)

RECENT = """-- Requests of a model on a day and the {days} before it.
-- entity: model_name
-- event_time: day
-- lookback: {days}d
SELECT model_name, day.day::TIMESTAMPTZ AS day, count(*) AS requests, sum({counted}) AS counted
FROM generate_series($start::DATE, $end::DATE - 1, INTERVAL 1 DAY) AS day(day)
JOIN {parent} AS parent
    ON parent.{time} >= day.day::TIMESTAMPTZ - INTERVAL {days} DAY
    AND parent.{time} < day.day::TIMESTAMPTZ + INTERVAL 1 DAY
WHERE parent.{time} >= $lookback_start AND parent.{time} < $end
GROUP BY ALL
"""

FILES = {
    "recent_requests": RECENT.format(
        days=2, parent="raw.raw_performance", time="timestamp", counted="batch_size"
    ),
    "recent_counts": RECENT.format(days=3, parent="features.recent_requests", time="day", counted="counted"),
}
RECENT_REQUESTS, RECENT_COUNTS, RAW = (dg.AssetKey(["duckdb", name]) for name in (*FILES, "raw_performance"))


def drop_files(folder: Path) -> None:
    """The files, each with its contract."""
    folder.mkdir()
    columns = (
        Column("model_name", "string", nullable=False),
        Column("day", "timestamp", nullable=False),
        Column("requests", "int64"),
        Column("counted", "int64"),
    )
    for name, text in FILES.items():
        file = folder / f"{name}.sql"
        file.write_text(text)
        contract = Contract(
            f"duckdb/{name}", "a model and a day", columns, ("model_name", "day"), partition_column="day"
        )
        pin_of(file).write_text(pinned_text(contract))


class Graph:
    """The graph over one ledger, and what Dagster's conditions ask of it."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self._settings, self._instance = settings, instance
        self._defs = build_defs(settings)
        self.refresher = Refresher(settings, self._defs, instance, lambda phase, done, total: None)
        self._cursor: Any = None
        self.asked()

    def land(self, name: str, day: date, count: int) -> None:
        """An event comes in, and its day is built as far as it does not look back."""
        file = self._settings.landing / "performance" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        event = {
            "event_id": name,
            "kind": "inference",
            "timestamp": f"{day}T12:00:00Z",
            "model_name": "cats",
            "batch_size": count,
        }
        file.write_text(json.dumps(event) + "\n")
        stores = store_resources(self._settings)
        bounds = Bounds(self._settings.partitions_start, datetime.now(UTC))
        take_in_files("performance", list_files(file.parent), stores["lake"], stores["postgres"], bounds)
        self.refresher.run_days([day], [RAW])

    def asked(self) -> dict[dg.AssetKey, set[str | None]]:
        """What the conditions of the two tables ask for since they were last looked at."""
        tables = [RECENT_REQUESTS, RECENT_COUNTS]
        result = dg.evaluate_automation_conditions(
            self._defs, self._instance, dg.AssetSelection.assets(*tables), cursor=self._cursor
        )
        self._cursor = result.cursor
        return {table: set(result.get_requested_partitions(table)) for table in tables}

    def counted(self, table: str, first: date, days: int) -> list[int]:
        """What a table counted, day by day."""
        lake = store_resources(self._settings)["lake"]
        rows = lake.reader(f"SELECT day, counted FROM features.{table} ORDER BY day").read_all().to_pylist()
        assert [row["day"].date() for row in rows] == [first + timedelta(days=n) for n in range(days)]
        return [row["counted"] for row in rows]


@pytest.fixture
def graph(settings, tmp_path):
    drop_files(tmp_path / "team")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(settings.model_copy(update={"feature_folders": (tmp_path / "team",)}), instance)


def days(first: date, count: int) -> set[date]:
    return {first + timedelta(days=n) for n in range(count)}


def test_a_late_row_has_exactly_the_days_rebuilt_that_read_it(graph):
    graph.land("first", DAY, 10)
    graph.refresher.run_windows()
    graph.asked()

    late = DAY - timedelta(days=2)
    graph.land("late", late, 1)
    due = {RECENT_REQUESTS: days(late, 3), RECENT_COUNTS: days(late, 6)}
    assert graph.asked() == {k: {each.isoformat() for each in found} for k, found in due.items()}
    assert graph.refresher.stale_windows() == due
    graph.refresher.run_windows()
    assert graph.refresher.stale_windows() == {}
    assert not any(graph.asked().values())
    assert graph.counted("recent_requests", late, 5) == [1, 1, 11, 10, 10]
    assert graph.counted("recent_counts", late, 8) == [1, 2, 13, 23, 32, 31, 20, 10]
