"""Are the rollups what the events say? Each is computed anew from the events and compared within the engine.

What belongs here: which columns are compared, how closely, and the sentences on rows that differ. Rollups by the hour and
by the day are held against the statement that makes them. Sketches are added up by the day and held against the exact
values of the events, quantiles included.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.lib.days import DayRange
from ml_assets.lib.sql import quote_identifier
from ml_assets.operations.performance_rollups import DAILY, SKETCHES, microseconds, rollup_sql
from ml_assets.operations.performance_trend import MEASURES, sketch_sql

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

CLOSE = 1e-9
"""Share by which sums of floats may differ, since the engine adds them up in any order."""

SKETCHED = 0.005
"""Share by which a sketch's quantile may differ from the exact one."""

_SHOWN = 10
_SPAN = timedelta(days=31)
"""Days that are compared at once, so that memory does not grow with the table."""


@dataclass(frozen=True)
class Proof:
    """What a comparison found.

    Args:
        rows: that were compared.
        differing: of them.
        told: a sentence on each of the first of those.
    """

    rows: int
    differing: int
    told: tuple[str, ...]


def prove(client: "Client", contract: Contract, days: DayRange | None) -> Proof:
    """Compare a rollup with the events.

    Args:
        client: of the resource's `client`.
        contract: of `performance_hourly`, `performance_daily` or `performance_sketches`.
        days: those that are compared; all that the events or the rollup have if None.
    """
    rows = differing = 0
    told: list[str] = []
    for span in _spans(days or _all_days(client, contract)):
        answer = client.query(_statement(contract), {**microseconds(span), **_BUCKETS}).result_rows
        rows += sum(int(row[0]) for row in answer[:1])
        differing += sum(int(row[1]) for row in answer[:1])
        told += [_told(contract, row[2:]) for row in answer if row[1]]
    return Proof(rows, differing, tuple(told[:_SHOWN]))


_BUCKETS = {"bucket_us": 86_400_000_000, "anchor_us": 0}
"""Of the sketches that are added up: days."""


def _spans(days: DayRange | None) -> Iterator[DayRange]:
    if days is None:
        return
    first = days.first
    while first <= days.last:
        last = min(days.last, first + _SPAN - timedelta(days=1))
        yield DayRange(first, last)
        first = last + timedelta(days=1)


def _all_days(client: "Client", contract: Contract) -> DayRange | None:
    column = quote_identifier(contract.partition_column or "")
    found = client.query(
        "SELECT min(first), max(last), count() FROM ("
        "SELECT toDate32(min(timestamp)) AS first, toDate32(max(timestamp)) AS last, count() AS n "
        "FROM ml_model_performance UNION ALL "
        f"SELECT toDate32(min({column})), toDate32(max({column})), count() FROM {quote_identifier(contract.table)}"
        ") WHERE n > 0"
    ).result_rows[0]
    return DayRange(found[0], found[1]) if found[2] else None


def _statement(contract: Contract) -> str:
    """Rows of both sides by their key, and of those that differ the first ones with what differs in them."""
    if contract.asset == SKETCHES:
        keys: tuple[str, ...] = ("day", "model_name")
        shares = dict.fromkeys(MEASURES, CLOSE) | {f"p{n}_inference_time_ms": SKETCHED for n in (50, 95, 99)}
        names = ", ".join(shares)
        stored = f"SELECT toDate32(bucket) AS day, slice AS model_name, {names} FROM ({sketch_sql('model', 'true')})"
        made = rollup_sql(DAILY)
    else:
        keys = contract.key
        shares = {name: CLOSE for name in contract.names if name not in keys}
        column = quote_identifier(contract.partition_column or "")
        kind = "toDate32" if contract.by_name[contract.partition_column or ""].type == "date" else ""
        stored = (
            f"SELECT {', '.join(map(quote_identifier, contract.names))} FROM {quote_identifier(contract.table)} "
            f"WHERE {column} >= {kind}(fromUnixTimestamp64Micro({{start_us:Int64}}, 'UTC')) "
            f"AND {column} < {kind}(fromUnixTimestamp64Micro({{end_us:Int64}}, 'UTC'))"
        )
        made = rollup_sql(contract.asset)
    return _comparison(stored, made, keys, shares, contract)


def _comparison(
    stored: str, made: str, keys: tuple[str, ...], shares: Mapping[str, float], contract: Contract
) -> str:
    floats = {c.name for c in contract.columns if c.type == "float64"} | {
        name for name in shares if not name.endswith("_count") and name != "last_event_at"
    }
    differing = []
    for name, share in shares.items():
        a, b = f"stored.{quote_identifier(name)}", f"made.{quote_identifier(name)}"
        if name in floats:
            far = (
                f"isInfinite({a}) != isInfinite({b}) OR "
                f"abs({a} - {b}) > {share * (1 + 1e-6)!r} * greatest(abs({a}), abs({b})) + {CLOSE!r}"
            )
        else:
            far = f"{a} != {b}"
        different = f"isNull({a}) != isNull({b}) OR coalesce({far}, false)"
        shown = f"concat('{name} ', ifNull(toString({a}), 'null'), ' for ', ifNull(toString({b}), 'null'))"
        differing.append(f"if({different}, {shown}, '')")
    using = ", ".join(keys)
    return (
        "SELECT rows, sum(differs) OVER () AS n, * EXCEPT (rows, differs) FROM ("
        f"SELECT count() OVER () AS rows, {using}, multiIf("
        "isNull(stored.here), ['the row is missing'], isNull(made.here), ['no event is behind the row'], "
        f"arrayFilter(each -> each != '', [{', '.join(differing)}])) AS what, notEmpty(what) AS differs "
        f"FROM (SELECT *, true AS here FROM ({stored})) AS stored "
        f"FULL JOIN (SELECT *, true AS here FROM ({made})) AS made USING ({using})"
        f") ORDER BY differs DESC, {using} LIMIT {_SHOWN} SETTINGS join_use_nulls = 1"
    )


def _told(contract: Contract, row: Any) -> str:
    *key, what = row
    when, model = key[0], key[1]
    shown = (
        f"{when:%Y-%m-%d %H:%M}" if contract.key[0] == "hour" and contract.asset != SKETCHES else f"{when}"
    )
    return f"{model} at {shown}: {', '.join(what)}"
