"""Whether what was served is what a model would be trained on: each logged row beside a join at the time it was served.

What belongs here: the comparison. How a request is logged is in stores/redis/served.py.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.lib.feature_header import FeatureHeader
from ml_assets.lib.sql import qualified, quote_identifier
from ml_assets.sql_files import read_sql
from ml_assets.stores.redis import served
from ml_assets.stores.redis.rows import fitting, packed

if TYPE_CHECKING:
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

_AT_ONCE = 10_000
"""Logged rows of one join, in which a view's whole table is read."""


@dataclass(frozen=True)
class Difference:
    """A value that was served and is not the one of the join.

    Args:
        entity: its columns and their values.
        served_at: when.
        served_from: `redis`, `postgres` or `none`.
        feature: its name.
        served, expected: both values, as JSON has them.
        newer: whether the join finds a newer row, which had not been brought online yet.
    """

    entity: dict[str, Any]
    served_at: datetime
    served_from: str
    feature: str
    served: Any
    expected: Any
    newer: bool


@dataclass(frozen=True)
class Compared:
    """A comparison.

    Args:
        rows: those that were compared.
        equal: how many of them are equal in all features that the view has yet.
        left_out: rows whose entity the view does not have any more: it has other columns, or of another type.
        different: values that differ.
        newer: how many of those had a newer row by then.
        differences: some of those values, the newest.
    """

    rows: int = 0
    equal: int = 0
    left_out: int = 0
    different: int = 0
    newer: int = 0
    differences: tuple[Difference, ...] = ()


def compare_served(
    lake: "DuckLakeResource",
    postgres: "PostgresResource",
    contract: Contract,
    header: FeatureHeader,
    since: datetime,
    shown: int,
) -> Compared:
    """Compare all that was served of a view and logged with the rows that counted then.

    Args:
        contract: of the view's table in the lake.
        header: of its file.
        since: aware; nothing that was served before.
        shown: differences that are kept, at most.
    """
    rows = equal = left_out = different = newer = 0
    kept: list[Difference] = []
    for part in served.served_since(postgres, contract.table, since, _AT_ONCE):
        logged = comparable(contract, header, part)
        left_out += len(part) - len(logged)
        if not logged:
            continue
        names = sorted({name for row in logged for name in row["features"]})
        there = _rows_then(lake, contract, header, logged, names)
        for number, row in enumerate(logged):
            found = list(_differences(row, there.get(number), header))
            rows, equal, different = rows + 1, equal + (not found), different + len(found)
            newer += sum(one.newer for one in found)
            kept += found[: shown - len(kept)]
    return Compared(rows, equal, left_out, different, newer, tuple(kept))


def comparable(
    contract: Contract, header: FeatureHeader, logged: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The logged rows whose entity the view still has, with values in place of texts, and without features that it has
    no more."""
    columns = [contract.by_name[name] for name in header.entity]
    found = []
    for row in logged:
        if row["entity"].keys() != set(header.entity):
            continue
        try:
            entity = {column.name: fitting(row["entity"][column.name], column) for column in columns}
        except (ValueError, KeyError):  # of the type that the column had
            continue
        features = {name: value for name, value in row["features"].items() if name in contract.by_name}
        found.append({**row, "entity": entity, "features": features})
    return found


def _rows_then(
    lake: "DuckLakeResource",
    contract: Contract,
    header: FeatureHeader,
    logged: Sequence[dict[str, Any]],
    names: Sequence[str],
) -> dict[int, dict[str, Any]]:
    """By number of the logged row, the row of the view that counted then."""
    sql, table = when_served(contract, header, logged, names)
    with lake.get_connection() as connection:
        connection.register("logged", table)
        rows = connection.execute(sql).to_arrow_table().to_pylist()
    return {row.pop("__logged_number"): row for row in rows}


def when_served(
    contract: Contract,
    header: FeatureHeader,
    logged: Sequence[dict[str, Any]],
    names: Sequence[str],
    table: str = "",
) -> tuple[str, pa.Table]:
    """The SELECT of the rows that counted, and the relation `logged` that it reads.

    Args:
        logged: as `comparable` gives them.
        names: columns that are wanted.
        table: of the view, in SQL; the lake's own if empty.
    """
    event_time = header.event_time or ""
    times = list(dict.fromkeys([event_time, header.known_time or event_time]))
    entity = {f"entity_{n}": name for n, name in enumerate(header.entity)}
    moment = pa.timestamp("us", "UTC")
    given = {
        "__logged_number": pa.array(range(len(logged)), pa.int64()),
        "served_at": pa.array([row["served_at"] for row in logged], moment),
        **{ours: pa.array([row["entity"][name] for row in logged]) for ours, name in entity.items()},
    }

    def column(name: str) -> str:
        return f"feature.{quote_identifier(name)}"

    rest = [name for name in contract.key if name not in (*header.entity, *times)]
    span = "" if header.ttl is None else f"INTERVAL {header.ttl.total_seconds():.0f} SECONDS"
    sql = read_sql("duckdb/serving/newest_when_served.sql").format(
        columns=", ".join(map(column, dict.fromkeys([*names, event_time]))),
        table=table or qualified(contract.schema, contract.table),
        entity=" AND ".join(f"{column(name)} = logged.{ours}" for ours, name in entity.items()),
        # A day is its midnight in UTC, in which sessions of the lake are.
        known=" AND ".join(f"{column(name)}::TIMESTAMPTZ <= logged.served_at" for name in times),
        ttl=f"{column(event_time)}::TIMESTAMPTZ >= logged.served_at - {span}" if span else "TRUE",
        order=", ".join(f"{column(name)} DESC NULLS LAST" for name in (*times, *rest)),
    )
    return sql, pa.table(given)


def _differences(
    logged: dict[str, Any], row: dict[str, Any] | None, header: FeatureHeader
) -> Iterator[Difference]:
    """What differs between a logged row and the one of the join; None is one without values."""
    then = {} if row is None else json.loads(packed(row))
    newer = False
    if row is not None:
        event = row[header.event_time or ""]
        was = logged["event_timestamp"]
        newer = was is None or (event > (was if isinstance(event, datetime) else was.date()))
    for feature, value in logged["features"].items():
        expected = then.get(feature)
        if not _same(value, expected):
            yield Difference(
                logged["entity"], logged["served_at"], logged["served_from"], feature, value, expected, newer
            )


def _same(served_value: Any, expected: Any) -> bool:
    both_nan = (
        isinstance(served_value, float)
        and isinstance(expected, float)
        and math.isnan(served_value)
        and math.isnan(expected)
    )
    return both_nan or served_value == expected
