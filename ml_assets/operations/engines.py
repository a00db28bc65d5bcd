"""Do two engines compute the same rollup? DuckDB of the lake's events, ClickHouse of its own, and what is kept of it.

Counts, quantiles, maxima and sums are compared exactly. A mean of floating-point numbers depends in its last bits on the
order in which they are added up, so sums are those of integers, and a mean that is kept has to be the exact one but for
these bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml_assets.errors import missing_table
from ml_assets.lib.days import DayRange
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.sql_files import read_sql
from ml_assets.tables.comparison import SHOWN, Cell
from ml_assets.tables.staging import kept_from
from ml_assets.tables.validation import micros

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.duckdb import DuckLakeResource

_EVENTS = 2_000_000
"""Events of the days that are computed at a time."""

_EVER = DayRange(date(1900, 1, 1), date(2299, 12, 30))
"""Days that ClickHouse has times for."""

EXACT = (
    "evaluation_count",
    "request_count",
    "run_count",
    "accuracy_count",
    "accuracy_sum",
    "f1_score_count",
    "f1_score_sum",
    "inference_time_count",
    "inference_time_sum",
    "p50_inference_time_ms",
    "p95_inference_time_ms",
    "p99_inference_time_ms",
    "max_memory_usage_mb",
)
"""Numbers that both engines must compute to the last bit; those that `performance_hourly` has must be kept so."""

_UNITS = {"accuracy": 2.0**60, "f1_score": 2.0**60, "inference_time": 2.0**30}
"""What a sum is counted in."""

_LONGEST_MS = 1e9
"""A longer time counts as this much in the sum, which is then no longer the mean's."""

_KEPT_MEANS = {
    "avg_accuracy": "accuracy",
    "avg_f1_score": "f1_score",
    "avg_inference_time_ms": "inference_time",
}

TOLERANCE = 1e-9
"""By how much a kept mean or deviation may differ from the exact one, of the greater of 1 and its size."""


@dataclass(frozen=True)
class Engines:
    """What the comparison of the engines found.

    Args:
        hours: rows compared, one an hour and model.
        differing: numbers that differ.
        cells: the first of them; `here` is ClickHouse's, `there` DuckDB's.
    """

    hours: int
    differing: int
    cells: tuple[Cell, ...]


def engines_agree(
    lake: "DuckLakeResource",
    clickhouse: "ClickHouseResource",
    days: tuple[date, date] | None = None,
    kept_days: int | None = None,
) -> Engines:
    """Compute `performance_hourly` in both engines and compare the numbers.

    Memory stays flat: a few days at a time.

    Args:
        lake: has model_performance_events.
        clickhouse: has ml_model_performance and performance_hourly.
        days: first and last day, UTC; all days that either engine has if None.
        kept_days: how long ClickHouse keeps events; rollups and the lake have older ones.

    Raises:
        StoreUnavailable: a table was never made, or a store does not answer.
    """
    asked = DayRange(*days) if days else _EVER
    if kept_days:
        asked = DayRange(max(asked.first, kept_from(kept_days).date()), asked.last)
        if asked.last < asked.first:
            return Engines(0, 0, ())
    hours, differing, cells = 0, 0, []
    for span in _spans(_events_by_day(lake, clickhouse, asked)):
        with _told_if_missing():
            numbers = lake.reader(
                read_sql("duckdb/equivalence/performance_hourly.sql"),
                {"start": span.start, "end": span.end},
                bulk=True,
            ).read_all()
        window = {"start_us": micros(span.start), "end_us": micros(span.end)}
        with clickhouse.client() as client:
            theirs, kept = (
                client.query_arrow(
                    read_sql(f"clickhouse/equivalence/{name}.sql"), parameters=window, use_strings=True
                )
                for name in ("performance_hourly", "kept_hourly")
            )
        found = compare_numbers(numbers, theirs, kept)
        hours, differing = hours + found.hours, differing + found.differing
        cells += found.cells
    return Engines(hours, differing, tuple(cells[:SHOWN]))


def compare_numbers(lake: "pa.Table", clickhouse: "pa.Table", kept: "pa.Table") -> Engines:
    """Compare what both engines computed, and what `performance_hourly` has.

    Args:
        lake: as sql/duckdb/equivalence/performance_hourly.sql gives it.
        clickhouse: as sql/clickhouse/equivalence/performance_hourly.sql does.
        kept: as sql/clickhouse/equivalence/kept_hourly.sql does.
    """
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in (("lake", lake), ("clickhouse", clickhouse), ("kept", kept)):
            connection.register(f"arrow_{name}", table)
            connection.execute(f"CREATE TABLE {name} AS SELECT TRUE AS stands, * FROM arrow_{name}")
        parts = list(_tests(kept.column_names))
        tests = ", ".join(
            f"{{'column': '{name}', 'here': ({here})::VARCHAR, 'there': ({there})::VARCHAR, 'same': {same}}}"
            for name, here, there, same in parts
        )
        connection.execute(
            "CREATE TABLE unlike AS SELECT hour, model_name, test.* FROM ("
            f"SELECT hour, model_name, unnest([{tests}]) AS test "
            "FROM lake FULL JOIN clickhouse USING (hour, model_name) FULL JOIN kept USING (hour, model_name)"
            ") WHERE NOT test.same"
        )
        [(hours,)] = connection.execute("SELECT count(*) FROM lake").fetchall()
        [(differing,)] = connection.execute("SELECT count(*) FROM unlike").fetchall()
        rows = connection.execute(
            "SELECT strftime(hour, '%Y-%m-%dT%H:%MZ ') || model_name, \"column\", here, there FROM unlike "
            f'ORDER BY hour, model_name, "column" LIMIT {SHOWN}'
        ).fetchall()
    return Engines(hours, differing, tuple(Cell(*row) for row in rows))


def _tests(kept: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Name, both values and the condition for being the same, in SQL; for a row that is missing only one."""
    everywhere = "lake.stands AND clickhouse.stands AND kept.stands"
    where = "concat_ws(' ', if({0}.stands, '{0}', NULL))"
    yield (
        "(whole row)",
        f"concat_ws(', ', {where.format('clickhouse')}, if(kept.stands, 'performance_hourly', NULL))",
        where.format("lake"),
        f"coalesce({everywhere}, FALSE)",
    )
    for name in EXACT:
        same = f"clickhouse.{name} IS NOT DISTINCT FROM lake.{name}"
        yield name, f"clickhouse.{name}", f"lake.{name}", _where_there("clickhouse", same)
        if name in kept:
            same = f"kept.{name} IS NOT DISTINCT FROM lake.{name}"
            yield f"kept {name}", f"kept.{name}", f"lake.{name}", _where_there("kept", same)
    for name, summed in _KEPT_MEANS.items():
        mean = (
            f"if(lake.{summed}_count = 0, NULL, "
            f"lake.{summed}_sum::HUGEINT::DOUBLE / {_UNITS[summed]:.0f} / lake.{summed}_count)"
        )
        same = _close(f"kept.{name}", mean)
        if summed == "inference_time":
            same = f"coalesce(lake.longest_ms > {_LONGEST_MS}, FALSE) OR {same}"
        yield f"kept {name}", f"kept.{name}", mean, _where_there("kept", same)
    deviation = ("kept.std_accuracy", "lake.std_accuracy")
    yield "kept std_accuracy", *deviation, _where_there("kept", _close(*deviation))


def _where_there(side: str, same: str) -> str:
    """A row that is missing is told once."""
    return f"coalesce(NOT ({side}.stands AND lake.stands), TRUE) OR ({same})"


def _close(one: str, other: str) -> str:
    return (
        f"({one} IS NULL AND {other} IS NULL) OR "
        f"coalesce(abs({one} - ({other})) <= {TOLERANCE} * greatest(1, abs({other})), FALSE)"
    )


def _events_by_day(
    lake: "DuckLakeResource", clickhouse: "ClickHouseResource", days: DayRange
) -> dict[date, int]:
    """How many events either engine has on each of some days that has any."""
    import duckdb

    found: dict[date, int] = {}
    rows: list[Any] = []
    # No event may have come yet. What one engine has and the other one lacks is found when it is computed.
    with suppress(duckdb.CatalogException), lake.get_connection() as connection:
        rows += connection.execute(
            "SELECT CAST(timestamp AS DATE), count(*) FROM features.model_performance_events "
            "WHERE timestamp >= ? AND timestamp < ? GROUP BY 1",
            [days.start, days.end],
        ).fetchall()
    with clickhouse.client() as client, _told_if_missing():
        for table, time in (("ml_model_performance", "timestamp"), ("performance_hourly", "hour")):
            start, end = (
                f"fromUnixTimestamp64Micro({micros(moment)}, 'UTC')" for moment in (days.start, days.end)
            )
            counts = client.query(
                f"SELECT toDate32({time}, 'UTC'), count() FROM {table} "
                f"WHERE {time} >= {start} AND {time} < {end} GROUP BY 1"
            )
            rows.extend(counts.result_rows)
    for day, count in rows:
        found[day] = max(found.get(day, 0), int(count))
    return found


@contextmanager
def _told_if_missing() -> Iterator[None]:
    """Tell of a table that no run has made in a sentence.

    Raises:
        StoreUnavailable: the block asked for such a table.
    """
    import duckdb

    try:
        with missing_is_told("clickhouse/performance_hourly"):
            yield
    except duckdb.CatalogException as fault:
        raise missing_table("duckdb/model_performance_events") from fault


def _spans(events: dict[date, int]) -> Iterator[DayRange]:
    """Neighbouring days that have few enough events together, or one day."""
    span: list[date] = []
    total = 0
    for day in sorted(events):
        if span and (total + events[day] > _EVENTS or day - span[-1] > timedelta(days=1)):
            yield DayRange(span[0], span[-1])
            span, total = [], 0
        span.append(day)
        total += events[day]
    if span:
        yield DayRange(span[0], span[-1])
