"""Raw tables as queries over intake: a pure function of the rows of live contents.

What belongs here: which rows stand in a raw table, and the account of where the others went.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from ml_assets.contracts import STREAMS, Stream, Version
from ml_assets.intake import ledger
from ml_assets.intake.ingest import Lake
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.query import Query
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.sql_files import read_sql
from ml_assets.stores import touched_days
from ml_assets.stores.touched_days import Postgres
from ml_assets.tables.hashing import row_hash_sql

LOOKED_BACK_ON = ("runs", "metrics")
"""Streams that the features of later runs are made from."""


@dataclass(frozen=True)
class RawInputs:
    """What a raw table is built from, as of one moment.

    Args:
        first, last: days, `touched_days.WHOLE` both for a stream without days.
        live: contents that count: (unit_hash, origin).
        counters: touched days and how often they were touched.
    """

    stream: str
    first: date
    last: date
    live: Sequence[tuple[str, str]]
    counters: Mapping[date, int]

    def select(self, columns: str = "") -> str:
        """The raw table's query; see `raw_sql`."""
        return raw_sql(STREAMS[self.stream], columns, {origin for _, origin in self.live})

    @property
    def table(self) -> pa.Table:
        """The live contents as the relation `live`."""
        hashes, origins = zip(*self.live, strict=True) if self.live else ((), ())
        return pa.table(
            {"unit_hash": pa.array(hashes, pa.string()), "origin": pa.array(origins, pa.string())}
        )


def raw_inputs(postgres: Postgres, stream: str, first: date, last: date) -> RawInputs:
    """Live contents and counters in one snapshot: what is touched later makes the days due again."""
    touched_days.ensure_schema(postgres)
    everything = STREAMS[stream].unique_across_days
    with postgres.connect() as connection:
        # One snapshot for both statements.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        counters = touched_days.touched(connection, stream, first, last)
        live = ledger.live_contents(
            connection, stream, date.min if everything else first, date.max if everything else last
        )
    return RawInputs(stream, first, last, live, counters)


def raw_query(inputs: RawInputs, committed: Callable[[], None] | None = None) -> Query:
    """The rows of the raw table on the days of the inputs.

    Args:
        committed: called once the rows are in place.
    """
    parameters = {"first": inputs.first, "last": inputs.last}
    return Query(inputs.select(), parameters, {"live": inputs.table}, committed)


def raw_sql(stream: Stream, columns: str = "", origins: Set[str] = frozenset({"landing", "mlflow"})) -> str:
    """The query of a raw table. Parameters: $first, $last, and the relation `live` (unit_hash, origin).

    Args:
        columns: what is selected; the stream's columns if empty.
        origins: where the live contents come from. To look at both together costs half as much again.
    """
    columns = columns or ", ".join(quote_identifier(column.name) for column in stream.columns)
    key = stream.key
    if stream.mlflow_key and len(origins) > 1:
        name = "points"
    else:
        name = "unique" if stream.unique_across_days else "daily"
        key += stream.mlflow_key if "mlflow" in origins else ()
    return read_sql(f"duckdb/raw/{name}.sql").format(
        stream=stream.name,
        columns=columns,
        key=", ".join(map(quote_identifier, key)),
        mlflow_key=", ".join(map(quote_identifier, stream.mlflow_key)),
        version="".join(f"{_version_sql(version)} DESC NULLS LAST, " for version in stream.versions),
        filled=" + ".join(f"({quote_identifier(c.name)} IS NOT NULL)::TINYINT" for c in stream.columns),
        hash=row_hash_sql(stream.columns),
    )


def _version_sql(version: Version) -> str:
    value = f"coalesce({', '.join(map(quote_identifier, version.columns))})"
    if version.known:
        return f"({value} IS NOT NULL)"
    if not version.stages:
        return value
    ranks = (
        f"WHEN {quote_literal(each)} THEN {rank}"
        for rank, stage in enumerate(version.stages)
        for each in stage
    )
    return f"CASE {value} {' '.join(ranks)} END"


def following_days(lake: Lake, inputs: RawInputs, rules: MetricRules) -> set[date]:
    """Other days whose features look back on what a raw table built from these inputs will hold.

    A late run is the previous run of those after it. To be asked before the table is written: the answer
    comes from comparing what stands there with what will.

    Args:
        rules: which metrics are looked back on.
    """
    if inputs.stream not in LOOKED_BACK_ON:
        return set()
    with lake.get_connection() as connection:
        if not all(_exists(connection, "raw", f"raw_{stream}") for stream in LOOKED_BACK_ON):
            return set()
        others = "SELECT bool_or(created_at::DATE NOT BETWEEN $first AND $last) FROM raw.raw_runs"
        window = {"first": inputs.first, "last": inputs.last}
        if connection.execute(others, window).fetchone() != (True,):
            return set()
        statement = read_sql(f"duckdb/raw/followers_of_{inputs.stream}.sql")
        connection.register("live", inputs.table)
        if inputs.stream == "metrics":
            logged = connection.execute(read_sql("duckdb/raw/logged_keys.sql"), window).fetchall()
            keys = sorted(looked_back_on(logged, rules))
            if not keys:
                return set()
            # As literals, so that the rows of other keys are not even deduplicated.
            statement = statement.replace("{keys}", ", ".join(map(quote_literal, keys)))
        rows = connection.execute(statement.replace("{arriving}", inputs.select()), window)
        return {day for (day,) in rows.fetchall()}


def looked_back_on(logged: Iterable[tuple[str | None, str, Sequence[str]]], rules: MetricRules) -> set[str]:
    """The keys that judge runs, and those that are their accuracy.

    Args:
        logged: dataset, experiment and keys of runs.
    """
    found: set[str] = set()
    said = {
        (
            dataset if dataset in rules.of_dataset else None,
            experiment if experiment in rules.of_experiment else None,
            tuple(keys),
        )
        for dataset, experiment, keys in logged
    }
    for dataset, experiment, keys in said:
        found |= {key for key in keys if rules.canonical(key) == "accuracy"}
        if primary := rules.primary(dict.fromkeys(keys, 0.0), experiment, dataset):
            found.add(primary[0])
    return found


def outdated_events(lake: Lake, first: date, last: date, within: bool) -> set[date]:
    """Days whose performance events show another state of their run than its features do.

    To be asked after either table's commit, so that whichever is written last sees what the other one holds.

    Args:
        first, last: days that were written.
        within: ask for days among them; else for all others.
    """
    with lake.get_connection() as connection:
        if not all(
            _exists(connection, "features", name) for name in ("run_features", "model_performance_events")
        ):
            return set()
        rows = connection.execute(
            read_sql("duckdb/operations/outdated_events.sql"),
            {"first": first, "last": last, "within": within},
        )
        return {day for (day,) in rows.fetchall()}


def touch(postgres: Postgres, stream: str, days: Set[date]) -> None:
    """Make what is built from the rows of these days due again."""
    if days:
        with postgres.connect(write=True) as connection:
            touched_days.touch(connection, {(stream, day) for day in days})


def settle(postgres: Postgres, lake: Lake, inputs: RawInputs, following: Set[date] = frozenset()) -> None:
    """Enter in the ledger which content's rows stand in the raw table that was built from these inputs.

    To be called after the table's commit: days are settled only when their rows are there.

    Args:
        following: of `following_days`. They are touched once more: whoever has rebuilt them since they were
            found may have looked back on the rows of before.
    """
    touch(postgres, "runs", following)
    statement = inputs.select("unit_hash, coalesce(day, DATE '1970-01-01') AS day")
    with lake.get_connection() as connection:
        connection.register("live", inputs.table)
        rows = connection.execute(
            f"SELECT unit_hash, day, count(*) FROM ({statement}) GROUP BY ALL",
            {"first": inputs.first, "last": inputs.last},
        ).fetchall()
    with postgres.connect(write=True) as connection:
        ledger.enter_loaded(connection, inputs.stream, inputs.first, inputs.last, rows)
        touched_days.settle(connection, inputs.stream, inputs.counters)


def account(postgres: Postgres, ingest_ids: Iterable[str]) -> dict[str, dict[str, int]]:
    """Rows of some ingests for every stream: read = loaded + superseded + quarantined.

    To be asked after the raw tables of the days that the ingests touched are rebuilt.
    """
    with postgres.connect() as connection:
        counts = ledger.counts(connection, list(ingest_ids))
    nothing = {"read": 0, "loaded": 0, "superseded": 0, "quarantined": 0}
    return {stream: counts.get(stream, dict(nothing)) for stream in STREAMS}


def unbalanced_intake(postgres: Postgres, lake: Lake, stream: str) -> list[str]:
    """Sentences on contents whose rows read are not those that intake holds; none if all is well."""
    return list(unbalanced_contents(postgres, lake, stream).values())


def unbalanced_contents(postgres: Postgres, lake: Lake, stream: str) -> dict[str, str]:
    """The same by content hash."""
    touched_days.ensure_schema(postgres)
    with postgres.connect() as connection:
        contents = ledger.content_counts(connection, stream)
    with lake.get_connection() as connection:
        stored = _recount_intake(connection, stream)
    found = {}
    for content_hash, (item_name, read, good, quarantined) in contents.items():
        held = stored.get(content_hash, (0, 0))
        if held != (good, quarantined) or read != good + quarantined:
            found[content_hash] = (
                f"{item_name}: {read:,} rows were read, {good:,} taken in and {quarantined:,} quarantined, but "
                f"intake holds {held[0]:,} and {held[1]:,}; put it back in its place if it is gone, then "
                f"`ml-assets quarantine retry {stream}` and `ml-assets refresh` read it again"
            )
    return found


def unbalanced_raw(postgres: Postgres, lake: Lake, stream: str) -> list[str]:
    """Sentences on days whose raw rows the ledger does not account for; none if all is well.

    Days that are still to be rebuilt are left out.
    """
    touched_days.ensure_schema(postgres)
    with postgres.connect() as connection:
        loaded = ledger.loaded_by_day(connection, stream)
        due = set(touched_days.due_days(connection, stream))
    with lake.get_connection() as connection:
        raw = _recount_raw(connection, stream)
    found = []
    for day in sorted((loaded.keys() | raw.keys()) - due):
        if loaded.get(day, 0) != raw.get(day, 0):
            when = "" if day == touched_days.WHOLE else f" on {day}"
            found.append(
                f"raw_{stream} holds {raw.get(day, 0):,} rows{when}, the ledger accounts for "
                f"{loaded.get(day, 0):,}; materialize it again"
            )
    return found


def _exists(connection: Any, schema: str, table: str) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM duckdb_tables() "
        "WHERE database_name = 'lake' AND schema_name = ? AND table_name = ?",
        [schema, table],
    ).fetchone()
    return found != (0,)


def _recount_intake(connection: Any, stream: str) -> dict[str, tuple[int, int]]:
    if not _exists(connection, "intake", f"intake_{stream}"):
        return {}
    rows = connection.execute(
        "SELECT unit_hash, count(*) FILTER (quarantine_reason IS NULL), count(quarantine_reason) "
        f"FROM intake.{quote_identifier(f'intake_{stream}')} GROUP BY unit_hash"
    )
    return {content_hash: (good, bad) for content_hash, good, bad in rows.fetchall()}


def _recount_raw(connection: Any, stream: str) -> dict[date, int]:
    column = STREAMS[stream].day_column
    day = f"CAST({quote_identifier(column)} AS DATE)" if column else "DATE '1970-01-01'"
    if not _exists(connection, "raw", f"raw_{stream}"):
        return {}
    rows = connection.execute(
        f"SELECT {day}, count(*) FROM raw.{quote_identifier(f'raw_{stream}')} GROUP BY 1"
    )
    return dict(rows.fetchall())
