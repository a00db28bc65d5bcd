"""Labels: the times and entities of an entity frame, and the sentences for what cannot be looked up."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as kinds

from ml_assets.errors import Refusal
from ml_assets.lib.point_in_time import LABELS, Span, View
from ml_assets.lib.words import counted
from ml_assets.operations.feature_frames import Frame
from ml_assets.tables.validation import micros

if TYPE_CHECKING:
    import duckdb

_SHOWN = 5
"""Rows that a sentence names, at most."""


YEARS = Span(micros(datetime(1, 1, 1, tzinfo=UTC)), micros(datetime(9999, 12, 31, tzinfo=UTC)))
"""The times that dates are made of, in Python too."""


def refuse_unfit(frame: Frame, views: Sequence[View], outputs: Sequence[str], time_column: str) -> None:
    """Refuse a frame whose columns cannot be labels for these views.

    Args:
        outputs: names that the features are going to have.

    Raises:
        Refusal: a column is missing, of another type, or called as a feature is; or two features are called alike.
    """
    names = frame.schema.names
    if time_column not in names:
        raise Refusal(
            f"The entity frame has no column {time_column!r} with the labels' times{_index(frame, time_column)}: it has "
            f"{', '.join(names)}; name the one that is meant (time_column=, --time-column)."
        )
    kind = frame.schema.field(time_column).type
    if not kinds.is_timestamp(kind):
        raise Refusal(
            f"Column {time_column!r} of the entity frame is {kind}, and times with a zone are needed: in pandas "
            f"pd.to_datetime(frame[{time_column!r}], utc=True), in SQL {time_column}::TIMESTAMPTZ."
        )
    if kind.tz is None:
        raise Refusal(
            f"Column {time_column!r} of the entity frame has times without a zone: say which, for UTC in pandas by "
            f"frame[{time_column!r}].dt.tz_localize('UTC'), in SQL by {time_column} AT TIME ZONE 'UTC'."
        )
    for view in views:
        for name in view.entity:
            if name not in names:
                raise Refusal(
                    f"The entity frame has no column {name!r}, by which the view {view.name!r} is looked up"
                    f"{_index(frame, name)}: it has {', '.join(names)}; rename the one that is meant."
                )
            _refuse_type(view, name, frame.schema.field(name).type)
    counts = Counter(output.lower() for output in outputs)
    for output in outputs:
        if counts[output.lower()] > 1:
            raise Refusal(
                f"{counts[output.lower()]} columns of the result would be called {output!r}: ask for their views one by "
                "one, or rename the column in the SELECT of its view."
            )
    taken = {name.lower(): name for name in names}
    for output in outputs:
        if (column := taken.get(output.lower())) is not None:
            raise Refusal(
                f"The entity frame has a column {column!r} already, as the feature {output!r} is called: rename the "
                "column, or let features carry the names of their views (full_feature_names=True, --full-names)."
            )


def _index(frame: Frame, name: str) -> str:
    return " (the index is called so: frame.reset_index() makes it one)" if name in frame.index else ""


_FITTING: dict[str, tuple[Any, str]] = {
    "VARCHAR": (lambda kind: kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind), "text"),
    "BIGINT": (kinds.is_integer, "whole numbers"),
    "DOUBLE": (lambda kind: kinds.is_integer(kind) or kinds.is_floating(kind), "numbers"),
    "BOOLEAN": (kinds.is_boolean, "true or false"),
    "DATE": (kinds.is_date, "dates"),
    "TIMESTAMP WITH TIME ZONE": (lambda kind: kinds.is_timestamp(kind) and kind.tz is not None, "times with a zone"),
}  # fmt: skip
"""By a column's type in the lake, which types of a frame's column are looked up in it, and what they are called."""


def _refuse_type(view: View, name: str, kind: pa.DataType) -> None:
    plain = kind.value_type if kinds.is_dictionary(kind) else kind
    fits, told = _FITTING.get(view.types[name], (lambda kind: False, view.types[name]))
    if kinds.is_null(plain) or fits(plain):
        return
    cure = "astype('Int64')" if told == "whole numbers" else "astype(str)" if told == "text" else "astype()"
    raise Refusal(
        f"Column {name!r} of the entity frame is {kind}, and the view {view.name!r} has {told} there: convert it, in "
        f"pandas by {cure}, in SQL by {name}::{view.types[name]}."
    )


def label_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, time_column: str, entity: Sequence[str]
) -> pa.RecordBatchReader:
    """Labels as they are looked up: `number` from 0, `moment` in microseconds of UTC, `entity_0` ...

    Args:
        batches: of the frame, with at least these columns.
        schema: of the frame.
    """
    moment = pa.timestamp("us", "UTC")
    fields = [("number", pa.int64()), ("moment", moment)]
    told = pa.schema([*fields, *((f"entity_{n}", schema.field(name).type) for n, name in enumerate(entity))])

    def made() -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in batches:
            rows = pa.array(np.arange(row, row + batch.num_rows))
            row += batch.num_rows
            # What is finer than a microsecond is cut off: no event is as fine.
            at = pc.cast(batch.column(time_column), moment, safe=False)
            yield pa.RecordBatch.from_arrays(
                [rows, at, *(batch.column(name) for name in entity)], schema=told
            )

    return pa.RecordBatchReader.from_batches(told, made())


def load_labels(
    connection: "duckdb.DuckDBPyConnection", labels: pa.RecordBatchReader, types: Sequence[str]
) -> None:
    """Put labels into the temporary table in which statements look for them, entities in the types of the views."""
    entity = ", ".join(f"TRY_CAST(entity_{n} AS {kind}) AS entity_{n}" for n, kind in enumerate(types))
    connection.register("given_labels", labels)
    connection.execute(f"CREATE TEMP TABLE {LABELS} AS SELECT number, moment, {entity} FROM given_labels")
    connection.unregister("given_labels")


def span_of_labels(connection: "duckdb.DuckDBPyConnection") -> Span:
    """The first and the last time of the labels; any if there are none."""
    first, last = connection.execute(
        f"SELECT epoch_us(min(moment)), epoch_us(max(moment)) FROM {LABELS}"
    ).fetchall()[0]
    return Span(first or 0, last or 0)


def refuse_labels(
    connection: "duckdb.DuckDBPyConnection", time_column: str, entity: Sequence[str], allow_duplicates: bool
) -> None:
    """Refuse labels without a time, at a time beyond all years, or of the same entity at the same time.

    Raises:
        Refusal: there are such; the first rows are named, counted from 0.
    """
    beyond = "moment NOT BETWEEN make_timestamptz($first::BIGINT) AND make_timestamptz($last::BIGINT)"
    for condition, values, told in (
        ("moment IS NULL", {}, "no time"),
        (beyond, {"first": YEARS.first_us, "last": YEARS.last_us}, "a time beyond all years"),
    ):
        rows = connection.execute(
            f"SELECT number, count(*) OVER () FROM {LABELS} WHERE {condition} ORDER BY number LIMIT {_SHOWN}",
            values,
        ).fetchall()
        if rows:
            raise Refusal(
                f"{counted(rows[0][1], 'row')} of the entity frame {'has' if rows[0][1] == 1 else 'have'} {told} in "
                f"{time_column!r} (row {', '.join(str(row) for row, _ in rows)}, counted from 0): leave them out, or "
                "correct them."
            )
    if allow_duplicates:
        return
    columns = [f"entity_{n}" for n in range(len(entity))]
    # A label without an entity finds nothing, however often it stands there.
    named = " AND ".join(f"{name} IS NOT NULL" for name in columns)
    doubled = connection.execute(
        f"SELECT min(number), max(number), count(*) OVER (), moment::VARCHAR, {', '.join(columns)} FROM {LABELS} "
        f"WHERE {named} GROUP BY moment, {', '.join(columns)} HAVING count(*) > 1 ORDER BY min(number) LIMIT {_SHOWN}"
    ).fetchall()
    if doubled:
        first, last, count, at, *values = doubled[0]
        which = ", ".join(f"{name} {value!r}" for name, value in zip(entity, values, strict=True))
        raise Refusal(
            f"Rows {first} and {last} of the entity frame are of the same entity at the same time ({which}, {at}), and "
            f"so {'is 1 such pair' if count == 1 else f'are {count:,} such groups'} in all: leave one of each out "
            "(frame.drop_duplicates), or say that they are meant (allow_duplicates=True, --allow-duplicates)."
        )
