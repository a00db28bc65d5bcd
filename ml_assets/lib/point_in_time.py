"""Point-in-time joins as SQL of DuckDB: for each label the newest row of a view that was known at the label's time.

What belongs here: the statements, made of what a view is. Which views there are, and what labels look like as they are
given, is told in operations/; nothing is run here.

A row counts for a label if entity and label's entity are equal (a null equals nothing), if its event time and its known
time are not after the label's time, and if its event time is not more than the time to live before it. Of those that
count, the one of the newest event is taken; of several of one event time the one that was known last; of those the one
that is greatest by the rest of the key (NaN above all numbers, null below all values).

Where both times matter, a row can be used from the later of the two on. Taken in that order, a row is of use only if no
row before it is of a newer event, so those that are make up one series of times, and the newest of them at a time is
the row that is asked for: the ASOF join does the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from ml_assets.lib.sql import quote_identifier

LABELS = "labels"
"""The relation of the labels: `number` (BIGINT), `moment` (TIMESTAMPTZ) and `entity_0`, `entity_1` ..."""

_US = timedelta(microseconds=1)


@dataclass(frozen=True)
class View:
    """A table whose rows are looked up by entity and time.

    Args:
        name: of the view.
        relation: the table in SQL, its names quoted.
        entity: columns that name what the features are of.
        event_time: column of the time from which a row's values hold.
        known_time: column of the time from which they could be read; None if that is the event time.
        ttl: how long after the event time a row may be used; None if for ever.
        rest: columns that tell rows of one entity and event time apart; none if there is one such row at most.
        types: of all columns that the table has, as DuckDB spells them.
    """

    name: str
    relation: str
    entity: tuple[str, ...]
    event_time: str
    known_time: str | None = None
    ttl: timedelta | None = None
    rest: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)

    def is_date(self, column: str) -> bool:
        """Whether a column holds days, whose midnight in UTC is meant where a time is needed."""
        return self.types.get(column) == "DATE"


class Statement(NamedTuple):
    """SQL, and the values of its `$name`s."""

    sql: str
    values: dict[str, Any]


class Span(NamedTuple):
    """Times of labels: the first and the last, in microseconds since 1970 in UTC."""

    first_us: int
    last_us: int


class Part(NamedTuple):
    """One of several parts in which entities are looked up."""

    number: int
    parts: int


def in_span(view: View, span: Span) -> Statement:
    """The condition on a view's rows without which they count for no label of the span: it leaves files out."""
    bounds = {"last": span.last_us}
    conditions = [_bound(view, view.event_time, "<=", "last")]
    if view.known_time is not None:
        conditions.append(_bound(view, view.known_time, "<=", "last"))
    if view.ttl is not None:
        bounds["first"] = span.first_us - view.ttl // _US
        conditions.append(_bound(view, view.event_time, ">=", "first"))
    return Statement(" AND ".join(conditions), bounds)


def _bound(view: View, column: str, sign: str, value: str) -> str:
    moment = f"make_timestamptz(${value}::BIGINT)"
    if view.is_date(column):
        # The day itself may begin before the moment, which the join tells.
        moment = f"{moment}::DATE"
    return f"{quote_identifier(column)} {sign} {moment}"


def count_statement(view: View, span: Span) -> Statement:
    """How many rows of a view may count for the labels of a span."""
    condition, values = in_span(view, span)
    return Statement(f"SELECT count(*) FROM {view.relation} WHERE {condition}", values)


class Keyed(NamedTuple):
    """Relations in which each entity of the labels is one number, which sorts faster than text or several columns.

    Args:
        entities: `entity_0` ... as of the view that is looked up, and its `id`.
        labels: `number`, `moment` and `id`; without labels of which a part of the entity is null.
    """

    entities: str
    labels: str


def entities_statement(places: Sequence[int]) -> str:
    """Makes `Keyed.entities`.

    Args:
        places: by entity column of the view, the number n of the labels' `entity_n`.
    """
    columns = [f"entity_{place}" for place in places]
    named = ", ".join(f"{column} AS entity_{n}" for n, column in enumerate(columns))
    there = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    return f"SELECT *, row_number() OVER () AS id FROM (SELECT DISTINCT {named} FROM {LABELS} WHERE {there})"


def keyed_statement(places: Sequence[int], entities: str) -> str:
    """Makes `Keyed.labels` of `Keyed.entities`."""
    equal = " AND ".join(f"label.entity_{place} = entity.entity_{n}" for n, place in enumerate(places))
    return f"SELECT number, moment, id FROM {LABELS} AS label JOIN {entities} AS entity ON {equal}"


def found_statement(
    view: View, columns: Sequence[str], keyed: Keyed, span: Span, part: Part | None = None
) -> Statement:
    """The rows that are found, one at most for each label: `number`, then `value_0`, `value_1` ... for the columns.

    Args:
        view: where they are looked up.
        columns: whose values are wanted.
        keyed: the labels.
        span: within which all labels are.
        part: looks up only these entities.
    """
    condition, values = in_span(view, span)
    entity = [f"{quote_identifier(name)} AS entity_{n}" for n, name in enumerate(view.entity)]
    wanted = [f"{quote_identifier(name)} AS value_{n}" for n, name in enumerate(columns)]
    rest = [f"{quote_identifier(name)} AS rest_{n}" for n, name in enumerate(view.rest)]
    times = [f"{_moment(view, view.event_time)} AS event"]
    if view.known_time is not None:
        times.append(f"{_moment(view, view.known_time)} AS known")
    # A row without a known time was never known; the bounds have left it out, as one without an event time.
    rows = (
        f"SELECT * EXCLUDE ({', '.join(f'entity_{n}' for n in range(len(entity)))}) "
        f"FROM (SELECT {', '.join([*entity, *times, *wanted, *rest])} FROM {view.relation} WHERE {condition}) "
        f"JOIN {keyed.entities} USING ({', '.join(f'entity_{n}' for n in range(len(entity)))})"
    )
    labels = keyed.labels
    if part is not None:
        values |= {"part": part.number, "parts": part.parts}
        mine = "id % $parts = $part"
        rows, labels = f"{rows} WHERE {mine}", f"(FROM {labels} WHERE {mine})"
    usable = "event"
    if view.known_time is not None or rest:
        rows, usable = _series(rows, view.known_time is not None, len(rest)), "usable"
    chosen = ", ".join(["label.number", *(f"found.value_{n}" for n in range(len(columns)))])
    sql = (
        f"SELECT {chosen} FROM {labels} AS label ASOF JOIN ({rows}) AS found "
        f"ON label.id = found.id AND label.moment >= found.{usable}"
    )
    if view.ttl is not None:
        values["ttl"] = view.ttl // _US
        sql += " WHERE found.event >= label.moment - to_microseconds($ttl)"
    return Statement(sql, values)


def _moment(view: View, column: str) -> str:
    name = quote_identifier(column)
    return f"{name}::TIMESTAMPTZ" if view.is_date(column) else name


def _series(rows: str, is_known: bool, rest: int) -> str:
    """Those of the rows that are of use from a time on, one at most for each entity and time, `usable`."""
    usable = "greatest(event, known)" if is_known else "event"
    order = ["usable", "event", *(["known"] if is_known else []), *(f"rest_{n}" for n in range(rest))]
    newest = "event = max(event) OVER series AND " if is_known else ""
    return (
        f"SELECT * FROM (SELECT *, {usable} AS usable FROM ({rows})) "
        f"WINDOW series AS (PARTITION BY id ORDER BY {', '.join(f'{each} NULLS FIRST' for each in order)}) "
        f"QUALIFY {newest}lead(usable) OVER series IS DISTINCT FROM usable"
    )


def joined_statement(outputs: Sequence[Sequence[str]], found: Sequence[str]) -> str:
    """The columns of all views for all labels, in the labels' order.

    Args:
        outputs: by view, the names of the result's columns.
        found: by view, the relation of what `found_statement` gave.
    """
    columns = [
        f"found_{view}.value_{n} AS {quote_identifier(name)}"
        for view, names in enumerate(outputs)
        for n, name in enumerate(names)
    ]
    joins = [
        f"LEFT JOIN {relation} AS found_{n} ON label.number = found_{n}.number"
        for n, relation in enumerate(found)
    ]
    return f"SELECT {', '.join(columns)} FROM {LABELS} AS label {' '.join(joins)} ORDER BY label.number"


def moments_statement(views: Sequence[View], span: Span) -> Statement:
    """Every entity of the views at each time of the span at which a row began to be usable: `entity_0` ... and `moment`.

    The views have equally many entity columns, of the same types; the rows are in the order of time and entity.

    Args:
        views: whose rows are meant.
        span: its last time is not in it.
    """
    parts = []
    for view in views:
        names = [quote_identifier(name) for name in view.entity]
        event = _moment(view, view.event_time)
        # Whatever cannot be in the span any more leaves files out; the rest is told by the times themselves.
        conditions = [*(f"{name} IS NOT NULL" for name in names), _bound(view, view.event_time, "<=", "last")]
        if view.known_time is None:
            usable = event
            conditions.append(_bound(view, view.event_time, ">=", "first"))
        else:
            usable = f"greatest({event}, {_moment(view, view.known_time)})"
            conditions += [_bound(view, view.known_time, "<=", "last")]
        entity = ", ".join(f"{name} AS entity_{n}" for n, name in enumerate(names))
        parts.append(
            f"SELECT {entity}, {usable} AS moment FROM {view.relation} WHERE {' AND '.join(conditions)}"
        )
    entity = ", ".join(f"entity_{n}" for n in range(len(views[0].entity)))
    sql = (
        f"SELECT DISTINCT {entity}, moment FROM ({' UNION ALL '.join(parts)}) "
        "WHERE moment >= make_timestamptz($first::BIGINT) AND moment < make_timestamptz($last::BIGINT) "
        f"ORDER BY moment, {entity}"
    )
    return Statement(sql, {"first": span.first_us, "last": span.last_us})
