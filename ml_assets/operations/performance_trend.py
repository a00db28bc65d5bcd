"""How one model did over time: which table answers for which buckets, and gaps as gaps.

What belongs here: choosing where a trend is read, reading it, and its rows. The statements are the
`trend_of_...` in sql/clickhouse.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from ml_assets.errors import Refusal
from ml_assets.lib.leaks import span_of
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.operations.performance_retention import refuse_expired
from ml_assets.operations.performance_rollups import (
    DAILY,
    EVENTS,
    HOURLY,
    SKETCHES,
    with_functions,
)
from ml_assets.sql_files import read_sql
from ml_assets.tables.validation import micros

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

Slice = Literal["version", "dataset"]

SLICES: dict[str, str] = {"version": "model_version", "dataset": "dataset"}
"""What a trend may be told apart by, and the column of it."""

MEASURES = (
    "evaluation_count",
    "request_count",
    "avg_accuracy",
    "avg_f1_score",
    "avg_inference_time_ms",
    "p50_inference_time_ms",
    "p95_inference_time_ms",
    "p99_inference_time_ms",
    "max_memory_usage_mb",
    "std_accuracy",
)
"""The columns of a trend that hold what was measured."""

_COUNTS = ("evaluation_count", "request_count")
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_ANCHOR = datetime(1970, 1, 5, tzinfo=UTC)
"""A Monday, midnight, from which buckets are counted: those of a week begin on Mondays, those of hours at midnight."""

_END = datetime(2299, 12, 31, tzinfo=UTC)
"""Until then ClickHouse knows times."""

_MOST_ROWS = 100_000
_US = timedelta(microseconds=1)


@dataclass(frozen=True)
class Grid:
    """Buckets without a hole between them.

    Args:
        start: of the first one.
        bucket: length of each.
        count: how many there are.
    """

    start: datetime
    bucket: timedelta
    count: int

    @property
    def end(self) -> datetime:
        """The end of the last one."""
        return self.start + self.count * self.bucket

    @property
    def starts(self) -> list[datetime]:
        """The start of each."""
        return [self.start + n * self.bucket for n in range(self.count)]

    @property
    def bound(self) -> dict[str, int]:
        """What a statement binds of it."""
        return {
            "start_us": micros(self.start),
            "end_us": micros(self.end),
            "anchor_us": micros(_ANCHOR),
            "bucket_us": self.bucket // _US,
        }


def grid(window: timedelta | str, bucket: timedelta | str, until: datetime | None) -> Grid:
    """As many whole buckets as the window takes, up to the one that `until` lies in or ends.

    Args:
        window, bucket: lengths, or texts such as `30d` and `1h`.
        until: aware; now if None.

    Raises:
        Refusal: a length that is none, a time without a zone, too many buckets, or years that ClickHouse does not know.
    """
    length, step = length_of("window", window), length_of("bucket", bucket)
    _, end = bounds(length, until)
    count = -(-length // step)
    if count > _MOST_ROWS:
        raise Refusal(
            f"This window has {count:,} buckets: ask for a shorter one or for wider buckets, {_MOST_ROWS:,} at most."
        )
    if step > _END - end:
        raise Refusal(f"A bucket of {step} is too long: ask for a shorter one.")
    last = _ANCHOR + -((_ANCHOR - end) // step) * step
    start = max(_ANCHOR, last - count * step)
    return Grid(start, step, (last - start) // step)


def bounds(length: timedelta, until: datetime | None) -> tuple[datetime, datetime]:
    """The start and the end of a window.

    Args:
        until: aware; now if None.

    Raises:
        Refusal: a time without a zone, or years that ClickHouse does not know.
    """
    end = until or datetime.now(UTC)
    if end.tzinfo is None:
        raise Refusal(f"{end.isoformat()} has no time zone: give an aware time, such as {end.isoformat()}Z.")
    if not _ANCHOR < end < _END or length > end - _ANCHOR:
        raise Refusal(
            f"A window of {length.days:,} days up to {end:%Y-%m-%d} is not within the years 1970 to 2299: change it."
        )
    return end - length, end


def length_of(name: str, value: timedelta | str) -> timedelta:
    """A length of time that is given as such, or as text such as `7d`.

    Args:
        name: what it is of, for the sentence.

    Raises:
        Refusal: it is none, or not above 0.
    """
    try:
        found = span_of(value) if isinstance(value, str) else value
    except ValueError as fault:
        raise Refusal(f"The {name}: {fault}.") from None
    if not isinstance(found, timedelta):
        raise Refusal(f"The {name} is {found!r}: give a timedelta, or text such as 7d.")
    if found <= timedelta(0):
        raise Refusal(f"The {name} is not longer than nothing: write it such as 7d.")
    return found


def trend(
    client: "Client", model_name: str, cells: Grid, by: str | None, exact: bool, kept_days: int | None = None
) -> "pa.Table":
    """The rows of `Performance.trend`, one for each bucket, and of each slice where it is told apart.

    Args:
        client: of the resource's `client`.
        model_name: the model.
        cells: the buckets.
        by: `version` or `dataset`.
        exact: from the events if neither rollup has these buckets.
        kept_days: how long events are kept; for ever if None.

    Raises:
        Refusal: there is no such model or slice; names the nearest one. Or the events of the window have expired.
        StoreUnavailable: the table was never made.
    """
    if by is not None and by not in SLICES:
        raise Refusal(f"A trend is told apart by version or by dataset, not by {by!r}.")
    asset, text = _source(cells.bucket, by, exact)
    if asset == EVENTS:
        refuse_expired(cells.start, kept_days, "ask for buckets of whole hours without exact, or for")
    with missing_is_told(asset):
        found = client.query_arrow(text, {**cells.bound, "model_name": model_name}, use_strings=True)
        if not found.num_rows:
            require_model(client, asset, model_name)
    method = "approx" if asset == SKETCHES else "exact"
    return _with_gaps(found, model_name, cells, by, method)


def _source(bucket: timedelta, by: str | None, exact: bool) -> tuple[str, str]:
    """The table that answers for buckets of this length, and the statement."""
    if by is None and bucket in (_HOUR, _DAY):
        # Bounds of the column's own type, without which every day's partition is opened.
        asset, time, kind = (HOURLY, "hour", "") if bucket == _HOUR else (DAILY, "day", "toDate32")
        text = read_sql("clickhouse/trend_of_rollup.sql")
        for name, value in (("rollup", asset.partition("/")[2]), ("time", time), ("type", kind)):
            text = text.replace(f"{{{name}}}", value)
        return asset, text
    if bucket % _HOUR or exact:
        column = f"coalesce({SLICES[by]}, '')" if by else "''"
        return EVENTS, read_sql("clickhouse/trend_of_events.sql").replace("{slice}", column)
    return SKETCHES, sketch_sql(by)


def sketch_sql(by: str | None, chosen: str = "model_name = {model_name:String}") -> str:
    """The statement that adds sketches up, told apart by a slice or by `model`.

    Args:
        by: `version`, `dataset` or `model`; None for one row a bucket.
        chosen: a condition on the sketches; those of one model if nothing is said.
    """
    text = with_functions(read_sql("clickhouse/trend_of_sketches.sql"))
    column = "model_name" if by == "model" else SLICES[by] if by else "''"
    return text.replace("{slice}", column).replace("{chosen}", chosen)


def _with_gaps(found: "pa.Table", model_name: str, cells: Grid, by: str | None, method: str) -> "pa.Table":
    """A row for every bucket, with nulls and counts of 0 where there is nothing; slices one after the other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    starts = pa.array(cells.starts, pa.timestamp("us", "UTC"))
    slices = sorted(set(found["slice"].to_pylist())) if by else [""]
    parts = []
    for each in slices:
        own = pc.call_function("equal", [found["slice"], pa.scalar(each)])
        rows = found.filter(own) if by else found
        among = pc.SetLookupOptions(rows["bucket"].combine_chunks())
        places = pc.call_function("index_in", [starts], among)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            "bucket": starts,
            "model_name": pa.repeat(model_name, len(starts)),
        }
        if by:
            columns[SLICES[by]] = pa.repeat(each, len(starts))
        for name in MEASURES:
            values = rows[name].take(places)
            columns[name] = pc.fill_null(values, 0) if name in _COUNTS else values
        columns["method"] = pa.repeat(method, len(starts))
        columns["until"] = rows["until"].take(places).cast(pa.timestamp("us", "UTC"))
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def require_model(client: "Client", asset: str, model_name: str) -> None:
    """See that a table knows a model.

    Raises:
        Refusal: it does not; names the nearest one that it knows.
    """
    table = asset.partition("/")[2]
    known = [str(name) for (name,) in client.query(f"SELECT DISTINCT model_name FROM {table}").result_rows]
    if model_name in known:
        return
    near = get_close_matches(model_name, known, 1)
    instead = (
        f"did you mean {near[0]!r}?"
        if near
        else f"there are {', '.join(sorted(known)[:10])}."
        if known
        else "there are none yet: record some, and 'ml-assets refresh'."
    )
    raise Refusal(f"No event of a model {model_name!r} is rolled up: {instead}")
