"""Names that a store cannot give to a table or column, or would change without a word.

What belongs here: rules about names, of every store. What does not: types and values (docs/types.md).
"""

import re
from collections.abc import Iterable, Mapping

from ml_assets.lib.sql import is_name

_POSTGRES_BYTES = 63
"""Of a name; PostgreSQL cuts longer ones off without an error."""


_POSTGRES_OWN = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")


_COLLECTION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,498}[a-zA-Z0-9](?<!--next)(?<!--old)")
"""Up to 12 characters less than Chroma takes, since maintenance gives collections names that end in more."""


_CLICKHOUSE_OWN = re.compile(
    r"write_ledger|write_contracts|.+__(lock|(stage|ready|failed|lock)__[0-9a-f_]{16,})", re.DOTALL
)
"""Names of the tables that ClickHouse's writers keep beside a table; see stores/clickhouse/redo.py and _lock.py."""


_CLICKHOUSE_LONGEST = 160
"""Characters of a table's name as a file has it, where a byte that is no letter, digit or _ has three. ClickHouse takes
203, and what writers add to the name has 43 at most."""


_FOLDER = re.compile(r"[A-Za-z0-9_-]{256,}")
"""Names that DuckLake would give to a folder, and no file system takes; it gives folders other names than any others."""


def misnamed(table: str, columns: list[str]) -> Iterable[str]:
    for name in (table, *columns):
        if not is_name(name):
            yield f"{name!r} cannot be the name of a table or column, which is not empty and has no backslash and NUL"
    seen: dict[str, str] = {}
    for name in columns:
        # DuckDB, which checks and hashes for all stores, takes such columns for one.
        if (other := seen.setdefault(name.lower(), name)) != name:
            yield f"the names of columns {other!r} and {name!r} differ in upper and lower case only"


def misnamed_in(store: str, table: str, columns: Mapping[str, str]) -> Iterable[str]:
    """What one store refuses, or worse, changes without a word.

    Args:
        columns: the type of each column, by its name.
    """
    if store in ("postgres", "serving"):
        for name in (table, *columns):
            if (size := len(name.encode())) > _POSTGRES_BYTES:
                yield f"the name {name!r} has {size} bytes, and PostgreSQL cuts it off after {_POSTGRES_BYTES}"
        for name in columns:
            if name in _POSTGRES_OWN:
                yield f"each table of PostgreSQL has a column {name!r} of its own"
    if store == "duckdb":
        for name in columns:
            if name.lower().startswith("_ducklake_internal_"):
                yield f"DuckLake keeps names such as {name!r} for itself"
    if store == "clickhouse" and _CLICKHOUSE_OWN.fullmatch(table):
        yield f"a table of ClickHouse cannot have the name {table!r}, which its writers give to tables of their own"
    if store == "clickhouse" and (size := _escaped_length(table)) > _CLICKHOUSE_LONGEST:
        yield (
            f"the name {table!r} has {size} characters in a file's name, where each byte that is no letter, digit or _ "
            f"takes three, and {_CLICKHOUSE_LONGEST} are the most that ClickHouse and its writers have room for"
        )
    if store == "duckdb" and _FOLDER.fullmatch(table):
        yield f"the name {table!r} has {len(table)} bytes, and the folder that DuckLake gives it may have 255"
    if store in ("chroma", "qdrant"):
        if not _COLLECTION.fullmatch(table):
            yield (
                f"a collection of {store.capitalize()} cannot have the name {table!r}, but one of 3 to 500 characters of "
                "[a-zA-Z0-9._-] that begins and ends in a letter or digit and not in --next or --old"
            )
        whole = [name for name, kind in columns.items() if kind in ("json", "float64")]
        for name in columns:
            if store == "chroma" and name.startswith(("#", "$", "chroma:")):
                yield f"Chroma keeps names such as {name!r}, with #, $ or chroma: in front, for itself"
            if store == "qdrant" and (name in ("_entry", "_document") or '"' in name):
                yield f'{name!r} cannot be the name of a column of Qdrant: _entry and _document are ours, and " ends it'
            for other in whole:
                if name.startswith(f"{other}."):
                    yield f"column {name!r} would be taken for a part of the column {other!r}"


def _escaped_length(name: str) -> int:
    """Length of a name as ClickHouse writes it in that of a file."""
    return sum(
        1 if byte.isascii() and (byte.isalnum() or byte == "_") else 3
        for byte in name.encode().decode("latin-1")
    )
