"""SQL text: reading it from `sql/`, quoting names, redacting passwords.

What belongs here: the few helpers that every store's code needs to put a statement together. Values are
never put into SQL text by hand; they are bound. What does not: the statements themselves (they lie in
`sql/`), and anything that opens a connection.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time, timedelta

ALWAYS, NEVER = "1 = 1", "1 = 0"
"""Conditions that no column changes the meaning of: SQLite takes the bare word `true` for a column of that name."""


_CONSTANT = re.compile(
    # What a quote within means nothing in comes first, and is kept.
    r"""(?P<kept>--[^\n]*|/\*.*?\*/|"(?:[^"]|"")*")"""
    r"""|\b[eE]'(?:[^'\\]|''|\\.)*(?:'|\Z)|'(?:[^']|'')*(?:'|\Z)|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)""",
    re.DOTALL,
)
"""Comments and names in double quotes; and string constants of PostgreSQL, whole or cut off."""


def is_name(text: str) -> bool:
    """Whether a table or column can have this name: no NUL, and no backslash, which ClickHouse takes for an escape."""
    return bool(text) and "\\" not in text and "\0" not in text


def quote_identifier(name: str) -> str:
    """A table, column or schema name as a quoted identifier.

    Double quotes are understood by PostgreSQL, DuckDB, SQLite and ClickHouse alike; a quote inside is
    doubled. ClickHouse alone reads backslashes as escapes, so they are refused, as is the NUL that no store
    can hold.

    Raises:
        ValueError: the name is empty or holds a backslash or NUL.
    """
    if not is_name(name):
        raise ValueError(f"{name!r} cannot be the name of a table or column; use letters, digits and _")
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def qualified(*parts: str) -> str:
    """Quoted parts joined by dots: `qualified("raw", "raw_runs")` is `"raw"."raw_runs"`."""
    return ".".join(quote_identifier(part) for part in parts)


def free_name(wanted: str, columns: Iterable[str]) -> str:
    """A name for a value of ours beside a table's columns, quoted: `wanted`, or longer where a column is called so."""
    taken = {name.lower() for name in columns}
    while wanted.lower() in taken:
        wanted += "_"
    return quote_identifier(wanted)


def joined(parts: Sequence[str], word: str) -> str:
    """The parts joined by AND, OR or +, in halves: in a row each would lie one deeper, and stores refuse deep ones."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({joined(parts[:half], word)} {word} {joined(parts[half:], word)})"


def quote_literal(text: str) -> str:
    """Text as an SQL string literal, for the places that take no bound value (ATTACH, LOAD, SET)."""
    if "\0" in text:
        raise ValueError("a NUL character cannot stand in SQL text; remove it")
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def without_values(statement: str) -> str:
    """A statement of PostgreSQL on one line, with '...' in place of its string constants.

    PostgreSQL itself replaces the constants of queries by $1; those of other statements, such as a password, it keeps.
    """
    return " ".join(_CONSTANT.sub(lambda found: found["kept"] or "'...'", statement).split())


def quote_json(value: object) -> str:
    """A value as JSON in a string literal of ClickHouse, which alone reads backslashes as escapes."""
    return quote_literal(json.dumps(value).replace("\\", "\\\\"))


def first_date(moment: datetime) -> str:
    """The first date whose midnight in UTC is not before a moment, as `2026-01-31`: dates compare by their midnights."""
    day = moment.astimezone(UTC)
    later = timedelta(days=1) if day.time() != time.min else timedelta()
    return (day.date() + later).isoformat()


def utc_text(moment: datetime) -> str:
    """A point in time as SQLite stores it: `2026-01-31T09:30:00.000000Z`.

    Always UTC, always six decimals, so that text order is time order.

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; give an aware datetime")
    # Not strftime, whose %Y has no zeros in front before the year 1000.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
