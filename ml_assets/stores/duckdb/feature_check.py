"""Whether feature files can be used, told before any of them runs.

Each file's SELECT is bound by the engine to empty tables that have the columns of the contracts, in an engine without
data, in some milliseconds. So a missing table, an unknown or ambiguous column and a wrong type are known with their
places while the definitions load, and the columns of a new file are, too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

from ml_assets.contracts.feature_files import FeatureFile, pin_of, with_comments
from ml_assets.contracts.model import Column, ColumnType, Contract
from ml_assets.lib.feature_header import FeatureHeader
from ml_assets.lib.feature_sql import LAKE_SCHEMAS, METRIC_RULES, WINDOW_PARAMETERS, FeatureSQL, Reference
from ml_assets.lib.sql import qualified, quote_identifier
from ml_assets.lib.sql_text import place_of_byte, with_values
from ml_assets.stores.duckdb.select_file import parse_feature, parser, told
from ml_assets.tables.duckdb_types import DUCKDB_TYPES

if TYPE_CHECKING:
    import duckdb

_PREPARE = "PREPARE feature AS "

_MOMENTS: dict[str, str] = dict.fromkeys(WINDOW_PARAMETERS, "'2000-01-01 00:00:00+00'::TIMESTAMPTZ")

RULES = (
    "key VARCHAR, name VARCHAR, dataset VARCHAR, experiment VARCHAR, higher_is_better BOOLEAN, rank BIGINT"
)
"""Columns of `MetricRules.table`."""

_TYPES: tuple[tuple[str, ColumnType], ...] = (
    (r"VARCHAR|UUID|ENUM\(.*\)", "string"),
    (r"JSON|(STRUCT|MAP)\(.*\)(\[\d*\])*", "json"),
    (r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?", "int64"),
    (r"FLOAT|DOUBLE|DECIMAL\(.*\)", "float64"),
    ("BOOLEAN", "bool"),
    ("TIMESTAMP WITH TIME ZONE", "timestamp"),
    ("DATE", "date"),
    (r"(FLOAT|DOUBLE)\[(\d+)\]", "vector"),
)
"""DuckDB's types of a SELECT's columns, as patterns, and the logical ones."""

_CASTS = {
    "TIMESTAMP": "say of which zone the time is: (... AT TIME ZONE 'UTC')",
    "FLOAT[]": "say how long the vectors are: ...::FLOAT[384]",
    "DOUBLE[]": "say how long the vectors are: ...::FLOAT[384]",
    "TIME": "make seconds of it, or text",
    "INTERVAL": "make seconds of it: epoch(...)",
    "BLOB": "make text of it: base64(...)",
}

_WIDER: set[tuple[ColumnType, ColumnType]] = {("int64", "float64"), ("string", "json")}
"""What a SELECT may give where its contract says the second."""

_OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_SHOWN = 5
"""Names that a sentence lists, at most."""

_PLAIN = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class CheckedFile:
    """A file, and whether its table can be made.

    Args:
        file: the file.
        feature: what its SELECT reads; None if that cannot be parsed.
        contract: what its table promises: as it is pinned, or else as the engine tells of the SELECT; None if neither.
        fault: a sentence if the table cannot be made.
        is_taken: whether another file or asset has its name, or no table can have it.
    """

    file: FeatureFile
    feature: FeatureSQL | None = None
    contract: Contract | None = None
    fault: str = ""
    is_taken: bool = False

    @property
    def is_pinned(self) -> bool:
        """Whether its contract lies beside it."""
        return self.file.contract is not None


def check_files(
    files: Iterable[FeatureFile], tables: Mapping[str, Contract], others: bool = False
) -> tuple[CheckedFile, ...]:
    """Check all feature files, each with the others that it reads.

    Args:
        files: all of them.
        tables: the contracts of all tables of the graph, those of pinned files among them.
        others: whether the lake may have tables that nobody names here. What reads one is bound when it runs.

    Returns:
        as many, in their order.
    """
    known = tuple(contract for contract in tables.values() if contract.store == "duckdb")
    return _check_files(tuple(files), known, others)


@lru_cache(maxsize=8)
def _check_files(
    files: tuple[FeatureFile, ...], tables: tuple[Contract, ...], others: bool
) -> tuple[CheckedFile, ...]:
    with parser() as connection:
        checks = _Checks(files, tables, others, connection)
        return tuple(checks.checked(file) for file in files)


class _Checks:
    """All files of a graph."""

    def __init__(
        self,
        files: Sequence[FeatureFile],
        tables: Sequence[Contract],
        others: bool,
        connection: "duckdb.DuckDBPyConnection",
    ) -> None:
        self.connection = connection
        self.is_open = others
        self.files: dict[str, FeatureFile] = {}
        for file in files:
            self.files.setdefault(file.name, file)
        self.known = {(contract.schema, contract.table): contract for contract in tables}
        pinned = {file.name for file in files if file.contract and file.contract in tables}
        self.others = {table for schema, table in self.known if schema == "features"} - pinned
        self.parsed: dict[str, FeatureSQL | str] = {}
        self.found: dict[int, CheckedFile] = {}
        self.made: set[tuple[str, str]] = set()
        connection.execute(
            f"CREATE SCHEMA intake; CREATE SCHEMA raw; CREATE SCHEMA features; CREATE TABLE {METRIC_RULES} ({RULES})"
        )

    def checked(self, file: FeatureFile) -> CheckedFile:
        """The file with its fault, if it has one."""
        if id(file) not in self.found:
            self.found[id(file)] = self._checked(file)
        return self.found[id(file)]

    def _checked(self, file: FeatureFile) -> CheckedFile:
        import duckdb

        if file.is_taken or self.files[file.name] is not file:
            return CheckedFile(file, fault=file.fault, is_taken=True)
        if file.name in self.others:
            fault = f"{file.name}.sql: the lake has a table {file.name} that is made otherwise; give the file a new name"
            return CheckedFile(file, fault=fault, is_taken=True)
        feature = self._parsed(file)
        if isinstance(feature, str):
            return CheckedFile(file, None, file.contract, file.fault or feature)
        if file.fault or file.header is None:
            return CheckedFile(file, feature, file.contract, file.fault)
        try:
            self._refuse_references(feature)
            self._refuse_cycle(file.name)
            self._refuse_unusable(file, feature)
            if self._reads_unknown(file.name, set()):
                _refuse_header(file, file.header, feature)
                return CheckedFile(file, feature, file.contract)
            for one in feature.references:
                if one.schema:
                    self._make(one.schema, one.table)
            contract = made_contract(file, feature, self.connection)
        except ValueError as fault:
            return CheckedFile(file, feature, file.contract, str(fault))
        except duckdb.Error as fault:  # one that nobody foresaw is this file's all the same
            return CheckedFile(file, feature, file.contract, f"{file.name}.sql: {told(fault)[0]}")
        return CheckedFile(file, feature, contract)

    def _parsed(self, file: FeatureFile) -> FeatureSQL | str:
        """The file's SELECT, or why it is none."""
        import duckdb

        if file.name not in self.parsed:
            try:
                self.parsed[file.name] = parse_feature(file.name, file.text, self.connection)
            except ValueError as fault:
                self.parsed[file.name] = str(fault)
            except duckdb.Error as fault:
                self.parsed[file.name] = f"{file.name}.sql: {told(fault)[0]}"
        return self.parsed[file.name]

    def _refuse_references(self, feature: FeatureSQL) -> None:
        names = {(schema, table) for schema, table in self.known} | {
            ("features", name) for name, file in self.files.items() if not file.is_taken
        }
        for one in feature.references:
            where = f"{feature.name}.sql, line {one.line}, column {one.column}"
            if not one.schema and one.table == METRIC_RULES and not self.is_open:
                if not feature.parameters:
                    raise ValueError(
                        f"{where}: {METRIC_RULES} are those of the days that are built; bind $start and $end"
                    )
                continue
            if (one.schema, one.table) not in names and not (self.is_open and one.schema in LAKE_SCHEMAS):
                said = ".".join(part for part in (one.schema, one.table) if part)
                raise ValueError(f"{where}: there is no table {said}; {_nearest(said, names)}")
            if one.starred and self._may_change(one):
                raise ValueError(
                    f"{where}: a star takes whatever columns {one.schema}.{one.table} has, and those may change, as "
                    "no contract is pinned for it; name the columns"
                )
        for name in sorted(feature.parameters - set(WINDOW_PARAMETERS)):
            line, column = _place_of(feature.text, rf"\${re.escape(name)}\b")
            raise ValueError(
                f"{feature.name}.sql, line {line}, column {column}: nothing binds ${name}; the days that are built are "
                "[$start, $end)"
            )

    def _may_change(self, one: Reference) -> bool:
        """Whether no contract says which columns a table has."""
        made = one.schema == "features" and one.table not in self.others
        file = self.files.get(one.table) if made else None
        return file.contract is None if file else (one.schema, one.table) not in self.known

    def _refuse_cycle(self, name: str) -> None:
        if cycle := self._way(name, name, set()):
            told_cycle = " reads ".join(f"features.{each}" for each in (name, *cycle))
            raise ValueError(
                f"{name}.sql: {told_cycle}, and so the table would have to be there before it is made; take one of these "
                "out of a SELECT"
            )

    def _way(self, start: str, goal: str, seen: set[str]) -> list[str]:
        """The tables on a way by which one file reads another; empty if there is none."""
        for parent in sorted(self._read_by(start)):
            if parent == goal:
                return [parent]
            if parent not in seen:
                seen.add(parent)
                if way := self._way(parent, goal, seen):
                    return [parent, *way]
        return []

    def _read_by(self, name: str) -> set[str]:
        feature = self._parsed(self.files[name])
        references = feature.references if isinstance(feature, FeatureSQL) else ()
        # A file whose name is another table's makes none, so whoever reads that table does not read the file.
        names = set(self.files) - self.others
        return {one.table for one in references if one.schema == "features" and one.table in names}

    def _refuse_unusable(self, file: FeatureFile, feature: FeatureSQL) -> None:
        for parent in sorted(self._read_by(file.name)):
            above = self.checked(self.files[parent])
            if above.contract is None and above.fault:
                raise ValueError(
                    f"{file.name}.sql: it reads features.{parent}, whose columns are not known, since its file cannot be "
                    f"used: {above.fault}"
                )

    def _reads_unknown(self, name: str, seen: set[str]) -> bool:
        """Whether a file reads, or is made of what reads, a table whose columns are known when it runs alone."""
        feature = self._parsed(self.files[name])
        if name in seen or not isinstance(feature, FeatureSQL):
            return False
        seen.add(name)
        for one in feature.references:
            place = (one.schema, one.table)
            if place in self.known or not one.schema:
                continue
            if (
                one.schema != "features"
                or one.table not in self.files
                or self._reads_unknown(one.table, seen)
            ):
                return True
        return False

    def _make(self, schema: str, table: str) -> None:
        """Make an empty table as its contract has it."""
        if (schema, table) in self.made:
            return
        self.made.add((schema, table))
        file = self.files.get(table) if schema == "features" else None
        contract = self.known.get((schema, table)) or (file and self.checked(file).contract)
        assert contract is not None, table  # noqa: S101 - refused before
        columns = ", ".join(
            f"{quote_identifier(column.name)} {DUCKDB_TYPES[column.type]}" for column in contract.columns
        )
        self.connection.execute(f"CREATE TABLE {qualified(schema, table)} ({columns})")


def made_contract(
    file: FeatureFile, feature: FeatureSQL, connection: "duckdb.DuckDBPyConnection"
) -> Contract:
    """What a file's table promises: what is pinned, and where nothing is, what header and SELECT make.

    Args:
        connection: to an engine that has the tables which the file reads; with `errors_as_json`, errors have places.

    Raises:
        ValueError: the SELECT does not fit these tables, the header or the pin.
    """
    if file.header is None:
        raise ValueError(file.fault)
    made = _contract(file, file.header, feature, _columns(file, feature, connection))
    if file.contract is None:
        return made
    _refuse_difference(file, file.contract, made)
    return file.contract


def _columns(
    file: FeatureFile, feature: FeatureSQL, connection: "duckdb.DuckDBPyConnection"
) -> list[tuple[str, str]]:
    """Names and DuckDB's types of the SELECT's columns.

    Raises:
        ValueError: it does not fit the tables that it reads.
    """
    import duckdb

    text, fault = feature.text, None
    described = f"DESCRIBE {with_values(text, _MOMENTS)}"
    try:
        return [(row[0], row[1]) for row in connection.execute(described).fetchall()]
    except duckdb.Error as found:
        fault = found
    # Once more without values in place of the parameters, so that places are those in the file.
    try:
        connection.execute(_PREPARE + text)
        connection.execute("DEALLOCATE feature")
        before = None
    except duckdb.Error as found:
        fault, before = found, len(_PREPARE)
    reason, position = told(fault)
    where = ""
    if position is not None and before is not None:
        line, column = place_of_byte(text, max(position - before, 0))
        where = f", line {line}, column {column}"
    raise ValueError(f"{file.name}.sql{where}: {reason}")


def _contract(
    file: FeatureFile, header: FeatureHeader, feature: FeatureSQL, columns: Sequence[tuple[str, str]]
) -> Contract:
    """The contract that header and SELECT make.

    Raises:
        ValueError: they do not fit each other, or no table can have such a column.
    """
    _refuse_header(file, header, feature)
    names = [name for name, _ in columns]
    by_day = bool(feature.parameters)
    partition = (header.partition or header.event_time) if by_day else None
    for field, wanted in _named(header):
        if wanted not in names:
            raise ValueError(
                f"{_line_of(file, field)}: {field} names {wanted!r}, and the SELECT has no such column; "
                f"{_nearest(wanted, [('', name) for name in names])}"
            )
    key = header.key or (*header.entity, *([header.event_time] if by_day and header.event_time else []))
    required = {*key, partition}
    made = tuple(_column(file, feature, name, kind, name not in required) for name, kind in columns)
    for field in ("event_time", "known_time", "partition"):
        column = next((each for each in made if each.name == getattr(header, field)), None)
        if column is not None and column.type not in ("timestamp", "date"):
            raise ValueError(
                f"{_line_of(file, field)}: {field} names {column.name!r}, which is {column.type}; a timestamp with a "
                "time zone or a date is needed"
            )
    try:
        contract = Contract(
            file.asset,
            header.description,
            made,
            key=key if all(key) else (),
            partition_column=partition,
            order_by=header.order,
            unique_across_days=header.unique,
        )
    except ValueError as fault:
        raise ValueError(f"{file.name}.sql: {fault}") from None
    return with_comments(contract, feature.text)


def _refuse_header(file: FeatureFile, header: FeatureHeader, feature: FeatureSQL) -> None:
    """Refuse what no table can be made with, whatever columns the SELECT has.

    Raises:
        ValueError: an owner or a tag is none, or a line does not fit how the table is built.
    """
    _refuse_names(file, header)
    by_day = bool(feature.parameters)
    if by_day and not (header.partition or header.event_time):
        raise ValueError(
            f"{file.name}.sql: it is built by day ($start, $end), and its header names no event_time; add "
            "'-- event_time: COLUMN', or '-- partition: COLUMN' if its days are those of another time"
        )
    if not by_day:
        for field, value in (("lookback", header.lookback_days), ("partition", header.partition)):
            if value:
                raise ValueError(
                    f"{_line_of(file, field)}: {field} is of a table by day, and the SELECT binds no $start and $end; "
                    "bind them, or take the line out"
                )
    if header.known_time and not header.event_time:
        raise ValueError(
            f"{_line_of(file, 'known_time')}: known_time says from when values of an event_time could be read, and there "
            "is none; add '-- event_time: COLUMN', or take the line out"
        )
    if header.ttl is not None and not header.is_view:
        lacking = "event_time" if header.entity else "entity"
        raise ValueError(
            f"{_line_of(file, 'ttl')}: ttl says how long values of an entity may be used after their event_time, and "
            f"there is no {lacking}; add '-- {lacking}: COLUMN', or take the line out"
        )


def _refuse_names(file: FeatureFile, header: FeatureHeader) -> None:
    if header.owner is not None and not _OWNER.fullmatch(header.owner):
        raise ValueError(
            f"{_line_of(file, 'owner')}: owner is {header.owner!r}; write a mail address, or team:NAME"
        )
    for tag in header.tags:
        if not _TAG.fullmatch(tag):
            raise ValueError(
                f"{_line_of(file, 'tags')}: {tag!r} is no tag; use up to 63 letters, digits and _.-, with commas between "
                "the tags"
            )


def _named(header: FeatureHeader) -> Iterator[tuple[str, str]]:
    """All columns that a header names, with the name of its line."""
    for field in ("entity", "event_time", "known_time", "key", "partition", "order"):
        value = getattr(header, field) or ()
        for name in (value,) if isinstance(value, str) else value:
            yield field, name


def _column(file: FeatureFile, feature: FeatureSQL, name: str, kind: str, nullable: bool) -> Column:
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"{file.name}.sql: the SELECT has a column {name}; give it a name: ... AS name")
    for pattern, logical in _TYPES:
        if found := re.fullmatch(pattern, kind, re.DOTALL):
            dimension = int(found[2]) if logical == "vector" else None
            return Column(name, logical, nullable, dimension=dimension)
    remedy = _CASTS.get(kind, "make text of it (...::VARCHAR), or JSON (to_json(...))")
    raise ValueError(f"{file.name}.sql: column {name!r} is {kind}, which no table holds; {remedy}")


def _refuse_difference(file: FeatureFile, pinned: Contract, made: Contract) -> None:
    """Refuse a SELECT that no longer gives what its table promises.

    Raises:
        ValueError: columns, types, key or partitions differ.
    """
    told = [f"column {name!r} is new" for name in made.names if name not in pinned.by_name]
    for column in pinned.columns:
        now = made.by_name.get(column.name)
        if now is None:
            told.append(f"column {column.name!r} is gone")
        elif (now.type, now.dimension) != (column.type, column.dimension) and (
            now.type,
            column.type,
        ) not in _WIDER:
            told.append(f"column {column.name!r} is {_kind(now)} and was {_kind(column)}")
    for field in ("key", "partition_column", "unique_across_days"):
        was, now = getattr(pinned, field), getattr(made, field)
        if was != now:
            told.append(f"{field} is {now!r} and was {was!r}")
    if told:
        pin = pin_of(file.path)
        raise ValueError(
            f"{file.name}.sql is not as {pin.name} beside it promises: {'; '.join(told)}. Undo that in the file; or, if "
            f"it is meant, change {pin} alike (or delete it, then the next run pins what the file gives), and reload the "
            "definitions"
        )


def _kind(column: Column) -> str:
    return f"vector({column.dimension})" if column.type == "vector" else column.type


def _line_of(file: FeatureFile, field: str) -> str:
    line, _ = _place_of(file.text, rf"(?m)^[ \t]*--[ \t]*{field}[ \t]*:")
    return f"{file.name}.sql, line {line}"


def _place_of(text: str, pattern: str) -> tuple[int, int]:
    found = re.search(pattern, text)
    return place_of_byte(text, len(text[: found.start()].encode()) if found else 0)


def _nearest(said: str, names: Iterable[tuple[str, str]]) -> str:
    """What may be meant, or some of what there is."""
    full = {f"{schema}.{name}" if schema else name: name for schema, name in sorted(names)}
    # The names of the tables alone: that of a schema would make any two of its tables alike.
    schema, _, table = said.lower().rpartition(".")
    alike = {table, *get_close_matches(table, set(full.values()), 1, cutoff=0.75)}
    near = sorted(
        (one for one, name in full.items() if name in alike),
        key=lambda one: (full[one] != table, one.rpartition(".")[0] != schema),
    )
    if near:
        return f"did you mean {near[0]}?"
    others = [f"{len(full) - _SHOWN} more"] if len(full) > _SHOWN else []
    return f"there are {', '.join([*list(full)[:_SHOWN], *others])}"
