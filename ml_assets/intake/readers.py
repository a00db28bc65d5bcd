"""DuckDB's readers of files, told outright what they would guess otherwise.

What belongs here: which options a call of a reader is given that does not state them. A guess may add a column that
the file has not (a folder called `dataset=cifar10`), drop what it holds (a line that begins with `#`), or give a column
the type of its first rows and bend the later ones. What a query states is left as it is.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

_FOLDERS = {"hive_partitioning": "false"}
"""Columns come from the file, not from the names of the folders that it lies in."""

_ALL_ROWS = {"sample_size": "-1"}
"""A guessed type fits all rows: what comes after the sample would be cast to it, `1.5` to 2 and `true` to 1.0."""

PARQUET: Mapping[str, str] = _FOLDERS
JSON_LINES: Mapping[str, str] = {
    **_FOLDERS,
    "auto_detect": "false",
    "format": "'newline_delimited'",
    "records": "true",
    "compression": "'uncompressed'",
}
JSON_OBJECTS: Mapping[str, str] = {
    **_FOLDERS,
    "format": "'newline_delimited'",
    "compression": "'uncompressed'",
}
CSV: Mapping[str, str] = {
    **_FOLDERS,
    "auto_detect": "false",
    "header": "true",
    "quote": "'\"'",
    "escape": "'\"'",
    "comment": "''",
    "skip": "0",
    "strict_mode": "true",
    "null_padding": "false",
    "compression": "'none'",
}
"""What landing files of each kind are read with, in bulk; names and types are stated beside it."""

_JSON = ("read_json", "read_json_auto", "read_ndjson", "read_ndjson_auto")
_OBJECTS = ("read_json_objects", "read_json_objects_auto", "read_ndjson_objects")
_CSV = ("read_csv", "read_csv_auto")
_BY_FOLDER = (*_JSON, *_OBJECTS, *_CSV, "read_parquet", "parquet_scan", "read_avro", "read_duckdb")
"""Table functions that look at the names of folders."""
_EXCEL = ("read_xlsx",)
_GLOBBING = (*_BY_FOLDER, *_EXCEL, "read_text", "read_blob", "glob")
"""Table functions that take their argument for a pattern."""

FILE, PATTERN = "file", "file_pattern"
"""Parameters of a query: the file's path, and the pattern that no other file matches."""

# DuckDB cuts SQL into words and signs that each have the white space and comments behind them.
_WORD = re.compile(r'"(?:[^"]|"")*"|\w+|:=|=>|.', re.DOTALL)


@dataclass(frozen=True)
class Query:
    """A query with its guesses taken away.

    Args:
        sql: the text; differs from that of the file by options and `$file_pattern` alone.
        parameters: names that stand in it with a `$`.
    """

    sql: str
    parameters: frozenset[str]


@dataclass
class _Call:
    """A pair of brackets.

    Args:
        function: whose arguments stand in it; "" if it is no call.
        options: that it states.
    """

    function: str
    options: set[str] = field(default_factory=set)


def options(stated: Mapping[str, str]) -> str:
    """Options as they stand in a call."""
    return ", ".join(f"{name} = {value}" for name, value in stated.items())


def without_guesses(sql: str) -> Query:
    """The query with every reader that it calls told what the call does not state.

    What cannot be read as SQL comes back as it is: DuckDB will say what is wrong with it.
    """
    text = sql.encode()
    words = _words(text)
    open_: list[_Call] = []
    more: list[tuple[int, str]] = []
    parameters: set[str] = set()
    for number, (start, word) in enumerate(words):
        before = words[number - 1][1] if number else ""
        after = words[number + 1][1] if number + 1 < len(words) else ""
        if word in ("(", "[", "{"):
            open_.append(_Call(before.strip('"').lower() if word == "(" else ""))
        elif word in (")", "]", "}"):
            call = open_.pop() if open_ else _Call("")
            missing = _missing(call.function, call.options)
            if missing and before != "(":
                more.append((start, f", {options(missing)}"))
        elif before == "$":
            name = word
            if word == FILE and any(call.function in _GLOBBING for call in open_):
                name = PATTERN
                more.append((start + len(FILE), PATTERN.removeprefix(FILE)))
            parameters.add(name)
        elif after in ("=", ":=", "=>") and open_:
            open_[-1].options.add(word.strip('"').lower())
    for start, inserted in reversed(more):
        text = text[:start] + inserted.encode() + text[start:]
    return Query(text.decode(), frozenset(parameters))


def _missing(function: str, stated: Collection[str]) -> dict[str, str]:
    """Options that a call of this function needs beside the stated ones."""
    wanted = dict(_FOLDERS) if function in _BY_FOLDER else {}
    if function in _EXCEL:
        # An empty row is no end.
        wanted["stop_at_empty"] = "false"
    if function in (*_JSON, *_CSV) and not {"columns", "all_varchar"}.intersection(stated):
        wanted |= _ALL_ROWS
    if function in _CSV:
        wanted |= {name: CSV[name] for name in ("comment", "skip")}
        if not {"quote", "escape"}.intersection(stated):
            wanted |= {name: CSV[name] for name in ("quote", "escape")}
        if {"names", "column_names", "columns"}.intersection(stated):
            # The names are not looked for in the first line, so it is a row like the others.
            wanted["header"] = "false"
    return {name: value for name, value in wanted.items() if name not in stated}


def _words(text: bytes) -> list[tuple[int, str]]:
    """Where each word or sign begins, in bytes, and what it is; of a string, its quote."""
    import duckdb

    starts = duckdb.tokenize(text.decode())
    ends = [start for start, _ in starts[1:]] + [len(text)]
    found = []
    for (start, kind), end in zip(starts, ends, strict=True):
        word = text[start:end].decode()
        if kind == duckdb.token_type.string_const:
            word = "'"
        elif (match := _WORD.match(word)) is not None:
            word = match.group()
        found.append((start, word))
    return found
