"""Rows of any types to a stream's typed columns, or to the reason why they break its contract.

What belongs here: the SQL that decides, made from the contract, and the JSON functions that it calls. What
does not: reading files, and writing anywhere.

Every value is first tried, never trusted: a number that is text, a time of any lawful spelling. What does not
convert exactly is refused with a sentence; a row gives the first reason that applies.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from ml_assets.contracts import Column, Stream
from ml_assets.intake.artifacts import FILES_TAG, FileRules, folder_files, kept_entries
from ml_assets.lib.artifact_uris import local_folder
from ml_assets.lib.canonical_json import JSONError, canonical
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.tables.duckdb_types import UNPARSED_TYPES

if TYPE_CHECKING:
    import duckdb

ANY_JSON = ("prediction",)
"""JSON columns that hold any document; the others hold an object."""

_FOLDER = "artifact_uri"
"""Column of runs that may name a folder of this machine."""

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_NUMBERS = (*_INTEGERS, "UBIGINT", "HUGEINT", "UHUGEINT", "FLOAT", "DOUBLE")
_NESTED = ("STRUCT", "MAP", "UNION")
_NAIVE = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE")

_LARGEST = {"int64": 2**63 - 1, "float64": sys.float_info.max}

_MISSING = "is missing; every row must have it"
_IN_FOLDER = " (the name of a folder is no column: have a source read the file with hive_partitioning = true)"

_NAIVE_BY_QUERY = (
    "is {}, to which the query or its reader gave the type {}, which has no time zone whatever the file says; state the "
    "type in the query: VARCHAR if the file names a zone, or, if it is UTC, write AT TIME ZONE 'UTC' behind it"
)

# A time of day, then a zone.
_ZONED = r":\d{2}(\.\d+)?\s*(z|utc|gmt|[+-]\d{2}(:?\d{2})?)$"
_NO_SECONDS = r"^(\d{4}-\d{2}-\d{2}[ t]\d{2}:\d{2})(\s*(?:z|utc|gmt|[+-]\d{2}(?::?\d{2})?))$"


@dataclass(frozen=True)
class Bounds:
    """The time that rows may lie in.

    Args:
        first_day: first daily partition, UTC.
        now: no row may lie on a later day than this moment's.
        files: which folders of this machine a row's files may lie in.
        naive_utc: streams whose times are UTC where they name no zone.
    """

    first_day: date
    now: datetime
    files: FileRules = field(default_factory=FileRules)
    naive_utc: tuple[str, ...] = ()

    @property
    def end(self) -> datetime:
        """First instant of tomorrow, UTC."""
        today = self.now.astimezone(UTC).date()
        return datetime(today.year, today.month, today.day, tzinfo=UTC) + timedelta(days=1)


@dataclass(frozen=True)
class _Reading:
    """How one column is read.

    Args:
        given: SQL text of the value as it came; evaluated for bad rows only.
        value: SQL of the typed value, null if it does not convert.
        present: SQL condition that a value came at all.
        faults: (condition, sentence) pairs, in order.
    """

    given: str
    value: str
    present: str
    faults: tuple[tuple[str, str], ...] = ()


def set_bounds(connection: "duckdb.DuckDBPyConnection", bounds: Bounds) -> None:
    """Give the connection the variables that `judge_rows` reads: a lazy relation takes no parameters."""
    connection.execute("SET VARIABLE intake_start = $1", [bounds.first_day])
    connection.execute("SET VARIABLE intake_end = $1", [bounds.end])
    rules = {**vars(bounds.files), "roots": [str(root) for root in bounds.files.roots]}
    connection.execute("SET VARIABLE intake_files = $1", [json.dumps(rules)])


def judge_rows(
    stream: Stream,
    source: str,
    types: Mapping[str, str],
    extras: bool = False,
    raw_text: str = "raw_text",
    by_query: bool = False,
    list_files: bool = True,
    naive_utc: bool = False,
) -> str:
    """A SELECT that gives every row of `source` in the columns of intake.

    The source has `unit`, `unit_hash`, `line`, `broken` (see splitter.py), and those of the stream's columns
    that are named in `types`, each under its own name. No other column of it may have a name of the file's:
    it could be one of those here. The connection has the variables of `set_bounds`.

    Args:
        source: SQL of a relation.
        types: DuckDB type of each column that the source has. JSON text in a VARCHAR is one document; a JSON
            value may be the document or a string that holds it.
        extras: whether the source has a column `unknown`: a JSON object with, among others, the columns that
            the stream does not know, for `extras_column`; null if the row has none.
        raw_text: SQL of the row as it came; evaluated for bad rows only.
        by_query: whether the types are those of a source's query, and not the file's own.
        list_files: whether the files of rows that name a folder of this machine are to be listed in their tags.
        naive_utc: whether a time without a zone is UTC, as its stream's setting says; otherwise it is refused.
    """
    readings = {
        c.name: _read(stream, c, types.get(c.name), extras, by_query, naive_utc) for c in stream.columns
    }
    typed = ",\n        ".join(f"{r.value} AS {_v(name)}" for name, r in readings.items())
    reasons = "\n            ".join(
        f"WHEN {fault} THEN {_sentence(name, r.given, sentence)}"
        for name, r in readings.items()
        for fault, sentence in r.faults
    )
    values = {name: _v(name) for name in readings}
    if list_files and types.get(_FOLDER):
        # Here, where a row is known to be a good one.
        values[stream.extras_column] = (
            f"CASE WHEN reason IS NULL AND regexp_matches({_v(_FOLDER)}, '^(/|file:)', 'i') "
            f"THEN with_files({values[stream.extras_column]}, {_v(_FOLDER)}, getvariable('intake_files')) "
            f"ELSE {values[stream.extras_column]} END"
        )
    columns = ",\n    ".join(f"{value} AS {quote_identifier(name)}" for name, value in values.items())
    # By way of microseconds: a cast of TIMESTAMPTZ to DATE asks the time zone library for every row.
    day = f"make_timestamp(epoch_us({_v(stream.day_column)}))::DATE" if stream.day_column else "NULL::DATE"
    # What only bad rows need stands inside a CASE, where DuckDB looks at bad rows only.
    return f"""
WITH typed AS (
    SELECT *,
        {typed}
    FROM {source}
),
judged AS (
    SELECT *,
        CASE
            WHEN broken IS NOT NULL THEN broken
            {reasons}
        END AS reason
    FROM typed
)
SELECT
    unit,
    unit_hash,
    line,
    CASE WHEN reason IS NULL THEN {day} END AS day,
    CASE WHEN reason IS NOT NULL THEN concat(unit, ' line ', line, ': ', reason, '.') END
        AS quarantine_reason,
    CASE WHEN reason IS NOT NULL THEN {raw_text} END AS raw_text,
    {columns}
FROM judged"""


def _v(name: str) -> str:
    """Name of the typed value of a column."""
    return quote_identifier(f"v_{name}")


def _sentence(name: str, given: str, sentence: str) -> str:
    """SQL of the reason: `{}` in the sentence stands for the value as it came."""
    before, shown, after = sentence.partition("{}")
    parts = [quote_literal(f"{name} {before}")]
    if shown:
        parts += [f"'''' || left({given}, 60) || ''''", quote_literal(after)]
    if sentence == _MISSING:
        named = f"contains('/' || unit, {quote_literal(f'/{name}=')})"
        parts.append(f"CASE WHEN {named} THEN {quote_literal(_IN_FOLDER)} END")
    return f"concat({', '.join(parts)})"


def _read(
    stream: Stream, column: Column, given_type: str | None, extras: bool, by_query: bool, naive_utc: bool
) -> _Reading:
    if given_type is None:
        reading = _Reading("''", f"NULL::{UNPARSED_TYPES[column.type]}", "false")
    elif column.type == "timestamp":
        reading = _read_timestamp(stream, column, *_plain(column, given_type.upper()), naive_utc)
    else:
        reading = _READERS[column.type](column, *_plain(column, given_type.upper()))
    faults = list(reading.faults)
    if by_query and given_type in _NAIVE and not naive_utc:
        faults = [(reading.present, _NAIVE_BY_QUERY.format("{}", given_type))]
    value = reading.value
    if column.name == stream.extras_column and extras:
        known = quote_literal(json.dumps([column.name for column in stream.columns]))
        value = f"CASE WHEN unknown IS NULL THEN {value} ELSE with_extras({value}, unknown, {known}) END"
        # In place of extras that cannot be kept.
        told = (
            "cannot take up the unknown columns; they hold U+0000, an integer beyond 64 bits or JSON nested "
            "too deeply"
        )
        faults.append((f"{_v(column.name)} = ''", told))
    if not column.nullable:
        faults.append((f"NOT {reading.present}", _MISSING))
    faults += _value_faults(stream, column, _v(column.name))
    return _Reading(reading.given, value, reading.present, tuple(faults))


def _plain(column: Column, given_type: str) -> tuple[str, str]:
    """SQL of a column and its type, as text where the type is a wrapping of it."""
    name = quote_identifier(column.name)
    if column.type == "json":
        return name, given_type
    if given_type == "JSON":
        return f"({name} ->> '$')", "VARCHAR"
    if given_type.startswith(_NESTED) or given_type.endswith("]"):
        return f"to_json({name})::VARCHAR", "VARCHAR"
    return name, given_type


def _value_faults(stream: Stream, column: Column, value: str) -> list[tuple[str, str]]:
    faults: list[tuple[str, str]] = []
    # Few conditions, since each is looked at for every row.
    if column.choices:
        listed = ", ".join(map(quote_literal, column.choices))
        faults.append((f"{value} NOT IN ({listed})", f"is {{}}; write one of {', '.join(column.choices)}"))
    elif column.type == "string":
        faults.append((f"contains({value}, chr(0))", "holds the character U+0000; take it out"))
        if column.max_bytes is not None:
            told = f"begins with {{}} and has more than {column.max_bytes:,} bytes, which no index holds; shorten it"
            faults.append((f"strlen({value}) > {column.max_bytes}", told))
    if column.minimum is not None or column.maximum is not None:
        low = 0 if column.minimum is None else column.minimum
        span = f"at least {low:g}" if column.maximum is None else f"from {low:g} to {column.maximum:g}"
        high = _LARGEST[column.type] if column.maximum is None else column.maximum
        what = "finite number" if column.type == "float64" else "number"
        # NaN lies beyond every number.
        faults.append(
            (f"{value} NOT BETWEEN {low!r} AND {high!r}", f"is {{}}; write a {what} {span}, or leave it out")
        )
    if column.type == "timestamp":
        own_day = column.name == stream.day_column
        start = (
            "getvariable('intake_start')::DATE::TIMESTAMPTZ"
            if own_day
            else "TIMESTAMPTZ '1900-01-01 00:00:00+00'"
        )
        before = (
            "is {}, before the first daily partition; correct it, or set ML_ASSETS_PARTITIONS_START earlier"
            if own_day
            else "is {}, before 1900; correct it"
        )
        faults.append((f"{value} < {start}", before))
        faults.append(
            (
                f"{value} >= getvariable('intake_end')::TIMESTAMPTZ",
                "is {}, in the future; correct it, or retry it after that day",
            )
        )
    return faults


# --- one reader a type ------------------------------------------------------------------------------


def _read_string(column: Column, name: str, given_type: str) -> _Reading:
    text, present = name if given_type == "VARCHAR" else f"{name}::VARCHAR", f"{name} IS NOT NULL"
    if given_type == "BLOB":
        # As text, DuckDB writes bytes beyond ASCII as `\xE9`.
        fault = (f"{_v(column.name)} IS NULL AND {present}", "is {}, bytes that are no UTF-8; write text")
        return _Reading(text, f"TRY(decode({name}))", present, (fault,))
    return _Reading(text, text, present)


def _read_float(column: Column, name: str, given_type: str) -> _Reading:
    text, present = f"{name}::VARCHAR", f"{name} IS NOT NULL"
    if given_type in _NUMBERS or given_type.startswith("DECIMAL"):
        exact = name if given_type == "DOUBLE" else f"{name}::DOUBLE"
        return _Reading(text, exact, present)
    fault = (f"{_v(column.name)} IS NULL AND {present}", "is {}, not a number; correct it")
    return _Reading(text, f"TRY_CAST({text} AS DOUBLE)", present, (fault,))


def _read_integer(column: Column, name: str, given_type: str) -> _Reading:
    text, present = f"{name}::VARCHAR", f"{name} IS NOT NULL"
    if given_type in _INTEGERS:
        return _Reading(text, f"{name}::BIGINT", present)
    whole = f"TRY_CAST({text} AS BIGINT)"
    # TRY_CAST rounds 1.5 to 2: whole is what is equal to its own rounding.
    value = f"CASE WHEN {whole}::DOUBLE = TRY_CAST({text} AS DOUBLE) THEN {whole} END"
    fault = (f"{_v(column.name)} IS NULL AND {present}", "is {}, not a whole number; correct it")
    return _Reading(text, value, present, (fault,))


def _read_timestamp(stream: Stream, column: Column, name: str, given_type: str, naive_utc: bool) -> _Reading:
    present = f"{name} IS NOT NULL"
    setting = (
        f"or, if all times of {stream.name} without one are UTC, name {stream.name} in ML_ASSETS_NAIVE_TIMES_UTC and "
        "retry"
    )
    if given_type == "TIMESTAMP WITH TIME ZONE":
        return _Reading(f"{name}::VARCHAR", name, present)
    if given_type in _NAIVE:
        if naive_utc:  # the session's zone is UTC
            return _Reading(f"{name}::VARCHAR", f"{name}::TIMESTAMP::TIMESTAMPTZ", present)
        zone = (
            f"is {{}}, of a column of type {given_type}, which has no time zone; if it is UTC, write the column with "
            f"that zone (dt.tz_localize('UTC') in pandas, timestamp('us', 'UTC') in Arrow), {setting}"
        )
        return _Reading(f"{name}::VARCHAR", "NULL::TIMESTAMPTZ", present, ((present, zone),))
    text = name if given_type == "VARCHAR" else f"{name}::VARCHAR"
    number = f"TRY_CAST({text} AS DECIMAL(38, 9))"
    parsed = f"TRY_CAST({text} AS TIMESTAMPTZ)"
    # DuckDB asks for seconds; ISO 8601 does not. COALESCE looks at the second for what the first is not.
    with_seconds = f"regexp_replace({text}, '{_NO_SECONDS}', '\\1:00\\2', 'i')"
    either = f"coalesce({parsed}, TRY_CAST({with_seconds} AS TIMESTAMPTZ))"
    # The usual spelling first, and each further one only for what is left: AND and OR look at both sides.
    value = (
        f"CASE WHEN suffix({text}, 'Z') AND contains({text}, ':') THEN {either} "
        f"WHEN regexp_matches({text}, '{_ZONED}', 'i') THEN {either} "
        f"WHEN {number} IS NOT NULL THEN {_epoch(number)} END"
    )
    without_zone = f"coalesce(TRY_CAST({text} AS TIMESTAMP), TRY_CAST(concat({text}, ':00') AS TIMESTAMP))"
    if naive_utc:
        value = f"coalesce({value}, {without_zone}::TIMESTAMPTZ)"
    unread = f"{_v(column.name)} IS NULL AND {present}"
    naive = f"CASE WHEN {unread} THEN {without_zone} IS NOT NULL END"
    zone = f"is {{}}, without a time zone; add Z to it if it is UTC, {setting}"
    day = f"is {{}}, without time and zone; write it like 2026-01-31T00:00:00Z if it is UTC, {setting}"
    naive_day = f"CASE WHEN {unread} AND NOT contains({text}, ':') THEN {without_zone} IS NOT NULL END"
    unknown = "is {}, not a time; write it like 2026-01-31T09:30:00Z"
    return _Reading(text, value, present, ((naive_day, day), (naive, zone), (unread, unknown)))


def _epoch(number: str) -> str:
    """Seconds, milli-, micro- or nanoseconds since 1970: from 1973 to 5138 the magnitude tells which."""
    micros = (
        f"CASE WHEN {number} < 1e8 THEN NULL WHEN {number} < 1e11 THEN {number} * 1000000 "
        f"WHEN {number} < 1e14 THEN {number} * 1000 WHEN {number} < 1e17 THEN {number} "
        f"WHEN {number} < 1e20 THEN {number} / 1000 END"
    )
    return f"make_timestamptz(({micros})::BIGINT)"


def _read_json(column: Column, name: str, given_type: str) -> _Reading:
    present = f"{name} IS NOT NULL"
    nested = given_type.startswith(_NESTED) or given_type.endswith("]")
    text = f"to_json({name})::VARCHAR" if nested else f"{name}::VARCHAR"
    if column.name in ANY_JSON:
        call, what, way_out = "any_json", "JSON", "write text in double quotes"
    else:
        call, what, way_out = "json_object_text", "a JSON object", 'write an object such as {"a": 1}'
    fault = (
        f"{_v(column.name)} IS NULL AND {present}",
        f"is {{}}, not {what} that every store can hold; {way_out}, and null for NaN",
    )
    # Most rows of most streams have none of a column, and a call costs.
    return _Reading(text, f"CASE WHEN {present} THEN {call}({text}) END", present, (fault,))


_READERS: dict[str, Callable[[Column, str, str], _Reading]] = {
    "string": _read_string,
    "float64": _read_float,
    "int64": _read_integer,
    "json": _read_json,
}


# --- JSON -------------------------------------------------------------------------------------------


def register_functions(connection: "duckdb.DuckDBPyConnection") -> None:
    """Make the functions that `judge_rows` calls known to the connection's DuckDB instance."""
    import duckdb

    options: dict[str, Any] = {"type": "arrow", "null_handling": "special"}
    with _registering:
        for name, (function, count) in _FUNCTIONS.items():
            arguments: list[Any] = ["VARCHAR"] * count
            # An instance that an earlier connection was made of has them.
            with suppress(duckdb.CatalogException):
                connection.create_function(name, function, arguments, "VARCHAR", **options)


# Of the module, since an instance outlives the connection that they were registered by, and without
# annotations, since DuckDB evaluates those.
def _objects(texts):
    return _each(_object, texts)


def _documents(texts):
    return _each(_document, texts)


def _merged(texts, rows, known):
    names = frozenset(json.loads(known[0].as_py())) if len(known) else frozenset()
    pairs = zip(texts.to_pylist(), rows.to_pylist(), strict=True)
    return pa.array([_with_extras(text, row, names) for text, row in pairs], pa.string())


def _listed(texts, folders, rules):
    if not len(folders):
        return pa.array([], pa.string())
    given = json.loads(rules[0].as_py())
    allowed = FileRules(tuple(map(Path, given.pop("roots"))), **given)
    pairs = zip(texts.to_pylist(), folders.to_pylist(), strict=True)
    return pa.array([_with_files(text, folder, allowed) for text, folder in pairs], pa.string())


_FUNCTIONS: dict[str, tuple[Callable[..., pa.Array], int]] = {
    "json_object_text": (_objects, 1),
    "any_json": (_documents, 1),
    "with_extras": (_merged, 3),
    "with_files": (_listed, 3),
}
_registering = threading.Lock()
os.register_at_fork(
    before=_registering.acquire, after_in_child=_registering.release, after_in_parent=_registering.release
)


def _each(function: Callable[[str], str | None], texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([t if t is None else function(t) for t in texts.to_pylist()], pa.string())


def _document(text: str) -> str | None:
    try:
        return canonical(text)
    except JSONError:
        return None


def _object(text: str) -> str | None:
    """Canonical text of an object; a string that holds an object is unwrapped."""
    found = _document(text)
    if found is not None and found.startswith('"'):
        found = _document(orjson.loads(found))
    return found if found is not None and found.startswith("{") else None


def _with_extras(text: str | None, row: str | None, known: frozenset[str]) -> str | None:
    """The object with the row's unknown columns added; a name that is taken becomes `column.<name>`.

    NaN and infinities become text. Empty if an extra value is one that no store can hold.
    """
    if row is None:
        return text
    try:
        given = json.loads(row, parse_constant=str)
        extras = {k: v for k, v in given.items() if k not in known and v is not None}
        if not extras:
            return text
        held = orjson.loads(text) if text is not None else {}
        for name, value in extras.items():
            held[f"column.{name}" if name in held else name] = value
        return canonical(held)
    except (ValueError, RecursionError):  # a JSONError is a ValueError
        return ""


def _with_files(text: str | None, uri: str, rules: FileRules) -> str | None:
    """The tags with the list of the files that lie in a folder of this machine, in place of any that they had."""
    folder = local_folder(uri)
    if folder is None:
        return text
    held = orjson.loads(text) if text is not None else {}
    return canonical({**held, FILES_TAG: kept_entries(folder_files(folder, rules))})
