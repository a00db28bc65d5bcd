"""Regressions: what of the models became worse, when, how much, and with which run.

What belongs here: reading the series of all models out of ClickHouse, a model at a time, and describing what
lib/quality_drops.py and lib/episodes.py find in them and lib/false_discoveries.py believes.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from ml_assets.lib.episodes import Episode, Sensitivity, episodes
from ml_assets.lib.false_discoveries import Believed, believed
from ml_assets.lib.quality_drops import Days, Strictness, drops, judged, steady
from ml_assets.lib.quiet_series import quiet
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.operations.performance_trend import require_model
from ml_assets.sql_files import read_sql
from ml_assets.stores.clickhouse.stream import arrow_stream

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

    from ml_assets.resources.clickhouse import ClickHouseResource

ASSET = "clickhouse/performance_regressions"

Kind = Literal["quality", "latency", "memory"]

QUALITY = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1_score": "F1 score",
}
"""Metrics whose drops are looked for, by day, and their names in a sentence."""

COST: dict[str, tuple[Kind, str, str]] = {
    "avg_inference_time_ms": ("latency", "mean latency", "ms"),
    "p50_inference_time_ms": ("latency", "median latency", "ms"),
    "p95_inference_time_ms": ("latency", "95th percentile of latency", "ms"),
    "p99_inference_time_ms": ("latency", "99th percentile of latency", "ms"),
    "max_memory_usage_mb": ("memory", "memory in use", "MB"),
}
"""Metrics whose rises are looked for, by hour: kind, name in a sentence and unit."""

COST_SENSITIVITY = Sensitivity(least_effect=0.1)
"""A tenth more time or memory is the least that matters: machines differ by as much."""

RUNS_TOLD = 3
"""Runs before and after the beginning of an episode that are told, at most."""

_MODELS_AT_ONCE = 500
_SERIES_AT_ONCE = 500


class Series(NamedTuple):
    """Which series an episode is of."""

    model_name: str
    metric: str
    slice: str
    slice_value: str


@dataclass(frozen=True)
class _Run:
    dataset: str
    run_id: str | None
    model_version: str | None
    first_at: datetime
    last_at: datetime
    events: int

    def told(self) -> dict[str, Any]:
        """As a row of the table tells of it."""
        return {
            "run_id": self.run_id,
            "model_version": self.model_version,
            "first_at": self.first_at.isoformat(),
            "last_at": self.last_at.isoformat(),
            "events": self.events,
        }


def find(client: "Client") -> list[dict[str, Any]]:
    """The rows of `performance_regressions`, by what ml_model_performance and performance_hourly hold.

    The series are read in order and a model's is forgotten with the next; memory grows with what is found alone.

    Args:
        client: on the database that holds both tables.
    """
    where: list[Series] = []
    found: list[Episode] = []
    looked: Counter[date] = Counter()
    for series, of_series, days in _all(client):
        where += [series] * len(of_series)
        found += of_series
        looked.update(days)
    told = sorted((where[each.place], each.episode.opened_at, each) for each in believed(found, looked))
    rows: list[dict[str, Any]] = []
    for some in _chunks(told, _MODELS_AT_ONCE):
        runs = _runs(client, sorted({series.model_name for series, _, _ in some}))
        rows += [_row(series, each, runs.get(series.model_name, ())) for series, _, each in some]
    return rows


def former(client: "Client") -> list[dict[str, Any]]:
    """The rows that the table has."""
    given = {"model_name": "", "since_us": 0, "open_only": 0}
    statement = read_sql("clickhouse/regressions/told.sql")
    rows = client.query_arrow(statement, given, use_strings=True).to_pylist()
    return [{name: value for name, value in row.items() if name != "state"} for row in rows]


def with_expired(
    found: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], kept_from: datetime, now: datetime
) -> list[dict[str, Any]]:
    """The rows that are found, and as they stand those that the events that are left do not show any more.

    An episode is judged by what was normal before it. Where events of that time have expired it is as it was told then,
    and one that was going on is over once its level would be the normal one.

    Args:
        found: rows of `find`.
        before: rows of the table.
        kept_from: the first time of which events are kept.
    """
    judged_from, accepted = kept_from + timedelta(days=Strictness.memory), Strictness.accepted
    of_series: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found:
        of_series.setdefault(_series(row), []).append(row)
    stays: list[dict[str, Any]] = []
    gone: set[int] = set()
    for row in before:
        same = [each for each in of_series.get(_series(row), ()) if _overlap(row, each)]
        goes_on = row["closed_at"] is None or any(each["closed_at"] is None for each in same)
        if row["began_at"] >= judged_from or (same and goes_on):
            continue
        gone.update(map(id, same))
        ended = row["began_at"] + accepted
        stays.append(row if row["closed_at"] or ended > now else {**row, "closed_at": ended})
    return [*stays, *(row for row in found if id(row) not in gone)]


def _series(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in Series._fields)


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return max(one["began_at"], other["began_at"]) <= min(one["last_seen_at"], other["last_seen_at"])


def _all(client: "Client") -> Iterator[tuple[Series, list[Episode], set[date]]]:
    """The episodes of each series with the days on which it was judged."""
    yield from _quality(client)
    yield from _cost(client)


def _quality(client: "Client") -> Iterator[tuple[Series, list[Episode], set[date]]]:
    waiting: list[tuple[Series, Days]] = []
    for (model, slice_, value), rows in _grouped(
        client, "quality_by_day", ("model_name", "slice", "slice_value")
    ):
        days, told = rows["day"].to_pylist(), _numbers(rows, "rows")
        for metric in QUALITY:
            means = _numbers(rows, f"{metric}_mean")
            if np.isfinite(means).any():
                counts, squares = (_numbers(rows, f"{metric}_{part}") for part in ("count", "squares"))
                waiting.append(
                    (Series(model, metric, slice_, value), Days.of(days, counts, means, squares, told))
                )
        if len(waiting) >= _SERIES_AT_ONCE:
            yield from _falls(waiting)
            waiting = []
    yield from _falls(waiting)


def _falls(of: Sequence[tuple[Series, Days]]) -> Iterator[tuple[Series, list[Episode], set[date]]]:
    """The episodes of some series, which are looked through together first."""
    still = steady([days for _, days in of])
    for (series, days), is_still in zip(of, still, strict=True):
        yield series, [] if is_still else drops(days), set(judged(days))


def _cost(client: "Client") -> Iterator[tuple[Series, list[Episode], set[date]]]:
    waiting: list[tuple[Series, NDArray[np.int64], NDArray[np.float64]]] = []
    for (model,), rows in _grouped(client, "cost_by_hour", ("model_name",)):
        micros = rows["hour_us"].to_numpy()
        for metric in COST:
            values = _numbers(rows, metric)
            kept = np.isfinite(values)
            waiting.append((Series(model, metric, "all", ""), micros[kept], values[kept]))
        if len(waiting) >= _SERIES_AT_ONCE:
            yield from _rises(waiting)
            waiting = []
    yield from _rises(waiting)


def _rises(
    of: Sequence[tuple[Series, NDArray[np.int64], NDArray[np.float64]]],
) -> Iterator[tuple[Series, list[Episode], set[date]]]:
    """The episodes of some series, of which those of the same hours are looked through together first."""
    same: dict[bytes, list[int]] = {}
    for place, (_, micros, _) in enumerate(of):
        same.setdefault(micros.tobytes(), []).append(place)
    for places in same.values():
        times = [_EPOCH + timedelta(microseconds=us) for us in of[places[0]][1].tolist()]
        days = {time.date() for time in times[COST_SENSITIVITY.least :]}
        still = quiet(times, np.array([of[place][2] for place in places]), "up", COST_SENSITIVITY)
        for place, is_still in zip(places, still.tolist(), strict=True):
            series, _, values = of[place]
            yield series, [] if is_still else episodes(times, values, "up", COST_SENSITIVITY), days


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _numbers(rows: "pa.Table", name: str) -> NDArray[np.float64]:
    """A column with NaN for null."""
    return rows[name].to_numpy()


def _grouped(client: "Client", name: str, by: Sequence[str]) -> "Iterator[tuple[tuple[str, ...], pa.Table]]":
    """The rows of an ordered statement, those of each key together, whatever batches they come in."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    last: tuple[str, ...] | None = None
    with arrow_stream(client, read_sql(f"clickhouse/regressions/{name}.sql")) as batches:
        for batch in batches:
            keys = list(zip(*(batch.column(column).to_pylist() for column in by), strict=True))
            at = 0
            for key, group in groupby(keys):
                size = sum(1 for _ in group)
                if last is not None and key != last:
                    yield last, pa.Table.from_batches(waiting)
                    waiting = []
                last = key
                waiting.append(batch.slice(at, size))
                at += size
    if last is not None:
        yield last, pa.Table.from_batches(waiting)


def _chunks(told: Sequence[Any], size: int) -> Iterator[list[Any]]:
    every = iter(told)
    while some := list(islice(every, size)):
        yield some


def _runs(client: "Client", models: Sequence[str]) -> dict[str, list[_Run]]:
    rows = client.query_arrow(
        read_sql("clickhouse/regressions/runs.sql"), {"models": list(models)}, use_strings=True
    ).to_pylist()
    found: dict[str, list[_Run]] = {}
    for row in rows:
        model = row.pop("model_name")
        found.setdefault(model, []).append(_Run(events=row.pop("event_count"), **row))
    return found


def _row(series: Series, each: Believed, runs: Sequence[_Run]) -> dict[str, Any]:
    episode = each.episode
    of_slice = [run for run in runs if series.slice == "all" or run.dataset == series.slice_value]
    before, after = around(of_slice, episode.began_at)
    return {
        **series._asdict(),
        "opened_at": episode.opened_at,
        "kind": COST[series.metric][0] if series.metric in COST else "quality",
        "direction": episode.direction,
        "began_at": episode.began_at,
        "last_seen_at": episode.last_seen_at,
        "closed_at": episode.closed_at,
        "before": episode.before,
        "after": episode.after,
        "change": None if math.isnan(episode.change) else episode.change,
        "low": episode.low,
        "high": episode.high,
        "deviations": episode.deviations,
        "confidence": episode.confidence,
        "corrected_p": each.corrected_p,
        "value_count": episode.count,
        "runs_before": orjson.dumps([run.told() for run in before]).decode(),
        "runs_after": orjson.dumps([run.told() for run in after]).decode(),
        "description": describe(series, episode, before, after),
    }


def around(runs: Sequence[_Run], began_at: datetime) -> tuple[list[_Run], list[_Run]]:
    """The runs that were in use last before a time, and those that were first after it, each in order of time.

    One that was in use before and after is in both.
    """
    before = sorted(
        (run for run in runs if run.first_at < began_at), key=lambda run: min(run.last_at, began_at)
    )
    after = sorted(
        (run for run in runs if run.last_at >= began_at), key=lambda run: max(run.first_at, began_at)
    )
    return before[-RUNS_TOLD:], after[:RUNS_TOLD]


def describe(series: Series, episode: Episode, before: Sequence[_Run], after: Sequence[_Run]) -> str:
    """What happened, in sentences."""
    _, what, unit = COST.get(series.metric, ("quality", QUALITY.get(series.metric, series.metric), ""))
    form = "%Y-%m-%d %H:%M" if series.metric in COST else "%Y-%m-%d"
    of = f" on {series.slice_value or 'unknown data'}" if series.slice == "dataset" else ""
    share = "" if math.isnan(episode.change) else f", by {abs(episode.change):.1%}"
    unit = f" {unit}" if unit else ""
    ended = (
        f"it was over on {episode.closed_at:{form}}"
        if episode.closed_at
        else f"it goes on, last seen on {episode.last_seen_at:{form}}"
    )
    known = [run.model_version for run in before]
    new = [run.model_version for run in after[:1] if run.model_version not in known]
    why = (
        f" Version {new[0]} came with it, after version {known[-1]}."
        if new and new[0] and known and known[-1]
        else ""
    )
    return (
        f"The {what} of {series.model_name}{of} {'rose' if episode.direction == 'up' else 'fell'} from "
        f"{episode.before:.3g} to {episode.after:.3g}{unit}{share}, on {episode.began_at:{form}} "
        f"({episode.low:+.3g} to {episode.high:+.3g} with 95 % confidence); {ended}.{why}"
    )


def regressions(
    clickhouse: "ClickHouseResource", model_name: str | None, since: datetime | None, open_only: bool
) -> "pa.Table":
    """See `Performance.regressions`."""
    parameters = {
        "model_name": model_name or "",
        "since_us": (since - _EPOCH) // timedelta(microseconds=1) if since else 0,
        "open_only": int(open_only),
    }
    with clickhouse.client() as client, missing_is_told(ASSET):
        found = client.query_arrow(read_sql("clickhouse/regressions/told.sql"), parameters, use_strings=True)
        if model_name and not found.num_rows:
            require_model(client, "clickhouse/performance_hourly", model_name)
        return found
