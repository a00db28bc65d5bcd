"""Which tables hold the values of another one, where these are read, and why some tables are not compared by values.

Facts about pairs of tables, and the two readers that a comparison needs (operations/reconcile.py). What belongs here too:
rows that a table must hold by the SELECT that makes it, made anew.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import INDEXED, STREAMS, Contract, Tables
from ml_assets.intake.raw import raw_inputs, raw_query
from ml_assets.lib.days import DayRange
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.operations import run_tables
from ml_assets.operations.agreements import AGREEMENTS
from ml_assets.sql_files import read_sql
from ml_assets.stores import touched_days
from ml_assets.tables.arrow_types import conform
from ml_assets.tables.staging import kept_from
from ml_assets.tables.store import TableStore
from ml_assets.tables.validation import WHOLE, Window

if TYPE_CHECKING:
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

_EVER = DayRange(date(1, 1, 1), date(9999, 12, 30))


@dataclass(frozen=True)
class Sources:
    """What rows are read from.

    Args:
        stores: by the first part of the keys of their assets.
        rules: which way a metric is better.
    """

    stores: Mapping[str, TableStore]
    lake: "DuckLakeResource"
    postgres: "PostgresResource"
    rules: MetricRules


@dataclass(frozen=True)
class Carried:
    """Rows here are the rows upstream, value by value.

    Args:
        parent: asset upstream.
        columns: name here to name upstream; those that have the same name on both sides if empty.
        without: columns that are not compared though both sides have them.
    """

    parent: str
    columns: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """Rows here are those that a SELECT makes of the tables upstream, and it is run again.

    Args:
        parents: assets upstream.
        rows: reads them for the days of a range, or more days than these.
    """

    parents: tuple[str, ...]
    rows: Callable[[Sources, DayRange], Iterable[pa.RecordBatch]]


def _selected(file: str) -> Callable[[Sources, DayRange], Iterable[pa.RecordBatch]]:
    return lambda sources, days: sources.lake.reader(
        read_sql(file), {"start": days.start, "end": days.end}, bulk=True
    )


def _raw(stream: str) -> Callable[[Sources, DayRange], Iterable[pa.RecordBatch]]:
    def rows(sources: Sources, days: DayRange) -> Iterator[pa.RecordBatch]:
        if STREAMS[stream].day_column is None:
            days = DayRange(touched_days.WHOLE, touched_days.WHOLE)
        query = raw_query(raw_inputs(sources.postgres, stream, days.first, days.last))
        with sources.lake.get_connection() as connection, sources.lake.limit(connection, write=True):
            for name, table in query.tables.items():
                connection.register(name, table)
            yield from connection.execute(query.sql, query.parameters).to_arrow_reader(100_000)

    return rows


CARRIED: dict[str, Carried] = {
    "duckdb/run_features": Carried("duckdb/raw_runs", without=("metrics",)),
    "duckdb/ml_predictions": Carried("duckdb/raw_predictions", {"id": "prediction_id"}),
    "duckdb/model_performance_events": Carried("duckdb/raw_performance"),
    "duckdb/experiment_cards": Carried("duckdb/run_features"),
    "clickhouse/ml_model_performance": Carried("duckdb/model_performance_events"),
    "sqlite/ml_experiments": Carried("postgres/ml_experiments"),
    "postgres/experiment_embeddings": Carried("duckdb/experiment_cards"),
    "postgres/document_embeddings": Carried(
        "duckdb/document_chunks", {"id": "chunk_id", "created_at": "updated_at"}
    ),
    **{index: Carried(parent) for index, parent in INDEXED.items()},
}
"""By the asset downstream."""

MADE: dict[str, Made] = {
    **{f"duckdb/raw_{name}": Made((f"duckdb/intake_{name}",), _raw(name)) for name in STREAMS},
    "postgres/ml_experiments": Made(
        ("duckdb/raw_runs", "duckdb/raw_metrics"), _selected("duckdb/experiments/ml_experiments.sql")
    ),
    "postgres/ml_run_metrics": Made(
        ("duckdb/raw_runs", "duckdb/raw_metrics"),
        lambda sources, days: run_tables.run_metrics(sources.lake, days, sources.rules, bulk=True),
    ),
    "postgres/ml_run_params": Made(
        ("duckdb/raw_runs",), lambda sources, days: run_tables.run_params(sources.lake, days, bulk=True)
    ),
    "serving/online_features": Made(
        ("duckdb/run_features",),
        lambda sources, _: sources.lake.reader(read_sql("duckdb/serving/online_features.sql"), bulk=True),
    ),
}
"""By the asset downstream."""

UNCOMPARED: Mapping[str, str] = MappingProxyType(
    {
        "postgres/run_leaderboard": "It ranks runs, and no row of it is a row of another table.",
        "clickhouse/performance_daily": "It is computed; its own checks compute it again from the events.",
        "clickhouse/performance_sketches": "It is computed; its own checks compute it again from the events.",
        "clickhouse/performance_trends": "It is computed from the sketches, which their checks compute again.",
        "clickhouse/performance_regressions": "It holds findings, and no row of it is a row of another table.",
        "clickhouse/feature_drift": "It holds distances of samples, and no row of it is a row of another table.",
        "clickhouse/estimated_accuracy": "It holds estimates, and no row of it is a row of another table.",
        "clickhouse/alerts": "It holds findings as they stand, and no row of it is a row of another table.",
        "postgres/document_clusters": "It holds groups and places on a map, and no value of the table upstream.",
        "postgres/experiment_clusters": "It holds groups and places on a map, and no value of the table upstream.",
        "sqlite/ml_model_artifacts": "It is compared with sqlite/ml_experiments, which has these runs.",
        "sqlite/ml_training_data": "It is compared with postgres/ml_experiments, which has these runs.",
    }
)
"""Why the values of a table are not held against those of a table upstream with which they are not compared."""

_COMPUTED = "A SELECT computes its rows in the same store, and they are not those of another table."
_AGES = "What is served ages, and the lake's rows do not; `served_features` joins again what was served."


def compared_with(asset: str) -> set[str]:
    """The tables that one is compared with."""
    found = {agreement.parent for agreement in AGREEMENTS.get(asset, ())}
    if asset in CARRIED:
        found.add(CARRIED[asset].parent)
    return found | set(MADE[asset].parents) if asset in MADE else found


def why_not(asset: str, parent: str, views: Collection[str]) -> str:
    """Why a table is not compared with one upstream; "" if it is, or if nobody has said why.

    Args:
        views: names of the feature files, whose tables are made by a SELECT each.
    """
    if parent in compared_with(asset):
        return ""
    store, _, name = asset.partition("/")
    if name in views and store in ("duckdb", "serving"):
        return _COMPUTED if store == "duckdb" else _AGES
    return UNCOMPARED.get(asset, "")


def has_key(tables: Tables, asset: str) -> bool:
    """Whether both sides have the key. Who has written a feature file anew may have left it out."""
    return asset not in CARRIED or _names(tables, asset).keys() >= set(tables[asset].key)


def shape(tables: Tables, asset: str) -> Contract:
    """The contract of a table, narrowed to the columns that are compared."""
    contract = tables[asset]
    if asset not in CARRIED:
        return contract
    there = _names(tables, asset)
    columns = tuple(column for column in contract.columns if column.name in there)
    kept = contract.partition_column if contract.partition_column in there else None
    return replace(
        contract,
        columns=columns,
        partition_column=kept,
        order_by=(),
        indexes=(),
        scope=(),
        foreign_keys=(),
        event_time=None,
        ttl_s=None,
        vectors_by="",
    )


def _names(tables: Tables, asset: str) -> dict[str, str]:
    """The columns of a carried table that are compared, and their names upstream."""
    carried = CARRIED[asset]
    parent = tables[carried.parent].by_name
    names = {name: carried.columns.get(name, name) for name in tables[asset].names}
    return {name: there for name, there in names.items() if there in parent and name not in carried.without}


def rows_here(sources: Sources, tables: Tables, asset: str, window: Window) -> Iterator[pa.RecordBatch]:
    """What a table holds that its own writer has written, in the columns that are compared.

    Raises:
        LookupError: the table was never written; when the first batch is asked for.
    """
    contract = tables[asset]
    names = shape(tables, asset).names
    # Whoever carries a table takes all of its rows, whoever wrote them.
    scope = contract.scope if asset in MADE else ()
    chosen = list(dict.fromkeys([*names, *(name for name, _ in scope)]))
    for batch in sources.stores[contract.store].held(contract, chosen, window):
        owned = pa.array([True] * batch.num_rows)
        for name, value in scope:
            own = pc.call_function("equal", [batch.column(name), pa.scalar(value)])
            owned = pc.call_function("and", [owned, own])
        yield batch.select(list(names)).filter(owned)


def rows_there(sources: Sources, tables: Tables, asset: str, window: Window) -> Iterator[pa.RecordBatch]:
    """What a table must hold by those upstream, in the same columns.

    Raises:
        LookupError: a table upstream was never written; when the first batch is asked for.
    """
    if asset in MADE:
        rows: Any = MADE[asset].rows(sources, _days(window))
        if not isinstance(rows, pa.RecordBatchReader):
            rows = _streamed(rows)
        yield from conform(rows, tables[asset]) if rows is not None else ()
        return
    names = _names(tables, asset)
    parent, child = tables[CARRIED[asset].parent], tables[asset]
    if not child.partition_column or names.get(child.partition_column) != parent.partition_column:
        window = Window()
    for batch in sources.stores[parent.store].held(parent, list(dict.fromkeys(names.values())), window):
        arrays = [batch.column(there) for there in names.values()]
        yield pa.RecordBatch.from_arrays(arrays, names=list(names))


def _streamed(batches: Iterable[pa.RecordBatch]) -> pa.RecordBatchReader | None:
    """Batches as a stream; None if there are none."""
    rest = iter(batches)
    first = next(rest, None)
    if first is None:
        return None

    def all_batches() -> Iterator[pa.RecordBatch]:
        yield first
        yield from rest

    return pa.RecordBatchReader.from_batches(first.schema, all_batches())


def _days(window: Window) -> DayRange:
    if window.start is None:
        return _EVER
    last = (window.end - timedelta(microseconds=1)).astimezone(UTC).date() if window.end else _EVER.last
    return DayRange(window.start.astimezone(UTC).date(), last)


def kept(tables: Tables, asset: str) -> Window:
    """The days that a table and those upstream must both have: what has expired in one may stand in the other."""
    parents = MADE[asset].parents if asset in MADE else (CARRIED[asset].parent,)
    limits = [days for name in (asset, *parents) if (days := tables[name].kept_days)]
    return Window(kept_from(min(limits))) if limits else WHOLE


def due(sources: Sources, asset: str) -> set[int]:
    """Starts of days whose rows are to be rebuilt, which may be other ones until then, in microseconds since 1970."""
    store, _, table = asset.partition("/")
    stream = table.removeprefix("raw_")
    if store != "duckdb" or table == stream or stream not in STREAMS:
        return set()
    touched_days.ensure_schema(sources.postgres)
    with sources.postgres.connect() as connection:
        days = touched_days.due_days(connection, stream)
    epoch = datetime(1970, 1, 1, tzinfo=UTC).date()
    return {(day - epoch).days * 86_400_000_000 for day in days}
