"""Pins: versions of the lake that have a name, and stay readable whatever maintenance does.

A pin is a row of a table in the lake's catalog, written and read under the lock that maintenance takes: there is no
moment at which a version is pinned and being expired. With it stands what every table of the version holds, as the
lake's ledger noted it, and what its maker wants to keep beside it.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.errors import StoreUnavailable
from ml_assets.lib.words import counted
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb import ledger
from ml_assets.stores.duckdb.ddl import tables_of
from ml_assets.stores.duckdb.inlining import METADATA
from ml_assets.stores.duckdb.rows import live
from ml_assets.stores.duckdb.write import writing
from ml_assets.tables.hashing import HASH_VERSION
from ml_assets.tables.staging import TableState, table_state

if TYPE_CHECKING:
    import duckdb
    import psycopg

    from ml_assets.stores.duckdb import Lake

_FORMER = 'lake."ledger"."pins"'
"""Where the releases before had them, by name and version alone."""


@dataclass(frozen=True)
class Pin:
    """A version of the lake that has a name.

    Args:
        name: of the pin.
        version: number of the version, as in `AT (VERSION => n)`.
        written_at: when the version was written; None for a pin of a former release.
        pinned_at: when it was pinned.
        run_id: the run that it was made for.
        hash_version: how the hashes were computed.
        tables: rows and content hash of each table, by asset.
        files: the text of each feature file, by the table that it makes.
        settings: what else decides about the rows that the files make.
    """

    name: str
    version: int
    written_at: datetime | None
    pinned_at: datetime
    run_id: str | None
    hash_version: str
    tables: Mapping[str, TableState]
    files: Mapping[str, str]
    settings: Mapping[str, Any]


@contextmanager
def only_one(lake: "Lake") -> Iterator[None]:
    """One maintenance or change of pins at a time."""
    # No asset's name: with an empty part before the last one.
    with writing(lake, Contract("duckdb//maintenance", "", (), key=())):
        yield


def pin(
    lake: "Lake",
    name: str,
    version: int | None = None,
    *,
    tables: Collection[str] | None = None,
    files: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> Pin:
    """Keep a version of the whole lake readable for as long as it has this name.

    Args:
        name: of the pin, which no other pin has.
        version: of `lake.snapshots()`; the newest if None.
        tables: assets whose content is noted; all that the version has if None.
        files, settings, run_id: as `Pin`.

    Raises:
        LookupError: there is no such version or not any more, the version does not have a table, or the name is taken.
        StoreUnavailable: the catalog does not answer.
    """
    with lake.get_connection() as connection:  # makes the lake where there is none
        _ensure_schema(lake)
        with only_one(lake):
            if name in _former(connection):
                raise _taken(name)
            held = versions(connection)
            wanted = max(held) if version is None else version
            if wanted not in held:
                raise LookupError(
                    f"the lake has no version {wanted}: it was expired or never written; "
                    "SELECT * FROM lake.snapshots() shows those that can be pinned."
                )
            states = contents(lake.at(wanted), tables)
            row = _row(name, wanted, held[wanted], states, files, settings, run_id)
            with lake.catalog(write=True) as catalog:
                made = catalog.execute(read_sql("postgres/pins/add.sql"), row).fetchone()
    if made is None:
        raise _taken(name)
    return _pin(made)


def unpin(lake: "Lake", name: str) -> None:
    """Let a version go the way of all others.

    Raises:
        LookupError: nothing is pinned by this name.
    """
    with lake.get_connection() as connection, only_one(lake):
        if name in _former(connection):
            with lake.get_connection(write=True) as writing_connection:
                writing_connection.execute(f"DELETE FROM {_FORMER} WHERE name = $1", [name])
            return
        with lake.catalog(write=True) as catalog:
            removed = (
                _is_there(catalog) and catalog.execute(read_sql("postgres/pins/remove.sql"), (name,)).rowcount
            )
        if not removed:
            raise _unknown(name, pinned(lake, connection))


def pins(lake: "Lake", connection: "duckdb.DuckDBPyConnection") -> list[Pin]:
    """All pins, the oldest version first.

    Args:
        connection: to the lake.
    """
    with lake.catalog() as catalog:
        found = _rows(catalog, None)
    old = [
        Pin(name, version, None, at, None, "", {}, {}, {})
        for name, (version, at) in _former(connection).items()
    ]
    return sorted([*found, *old], key=lambda each: (each.version, each.name))


def the_pin(lake: "Lake", name: str) -> Pin:
    """The pin of this name.

    Raises:
        LookupError: there is none.
    """
    with lake.catalog() as catalog:
        if found := _rows(catalog, name):
            return found[0]
    with lake.get_connection() as connection:
        every = pins(lake, connection)
    for each in every:
        if each.name == name:
            return each
    raise _unknown(name, [each.name for each in every])


def pinned(lake: "Lake", connection: "duckdb.DuckDBPyConnection") -> dict[str, int]:
    """Pinned versions by name.

    Args:
        connection: to the lake.
    """
    former = {name: version for name, (version, _) in _former(connection).items()}
    with lake.catalog() as catalog:
        if not _is_there(catalog):
            return former
        return former | dict(catalog.execute(read_sql("postgres/pins/versions.sql")).fetchall())


def move_former(lake: "Lake") -> list[str]:
    """Move the pins of former releases to where pins are now; may be killed at any point, and done again.

    A pin whose version is gone, or has lost files, stays where it is, and keeps its version as before: nothing is known
    of it but its name, and nobody could open the home to let it go if it stopped the upgrade.

    Returns:
        The names of those that were moved.

    Raises:
        StoreUnavailable: the catalog, or the lake's object store, does not answer.
    """
    import duckdb

    with lake.catalog() as catalog:
        found = catalog.execute("SELECT to_regclass('public.ducklake_snapshot') IS NOT NULL").fetchone()
        if not (found and found[0]):
            return []  # nobody has made the lake yet, and this is no reason to
    if not _movable(lake):
        return []
    _ensure_schema(lake)
    with only_one(lake):
        moved = []
        # Anew: who was waited for may have moved one, or let it go.
        for name, (version, written_at, pinned_at) in _movable(lake).items():
            try:
                states = contents(lake.at(version))
            except (duckdb.IOException, OSError, StoreUnavailable) as fault:
                if lake.is_loss(fault):  # of files of its tables, or of its ledger
                    continue
                raise
            row = _row(name, version, written_at, states)
            with lake.catalog(write=True) as catalog:
                catalog.execute(read_sql("postgres/pins/move.sql"), row | {"pinned_at": pinned_at})
            with lake.get_connection(write=True) as connection:
                connection.execute(f"DELETE FROM {_FORMER} WHERE name = $1", [name])
            moved.append(name)
    return sorted(moved)


def _movable(lake: "Lake") -> dict[str, tuple[int, datetime, datetime]]:
    """By name, the pins of former releases whose version is there: it, when it was written, and when it was pinned."""
    with lake.get_connection() as connection:
        former, held = _former(connection), versions(connection)
    return {name: (version, held[version], at) for name, (version, at) in former.items() if version in held}


def _row(
    name: str,
    version: int,
    written_at: datetime,
    states: Mapping[str, TableState],
    files: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """A pin as the catalog has it."""
    return {
        "name": name,
        "version": version,
        "written_at": written_at,
        "run_id": run_id,
        "hash_version": HASH_VERSION,
        "tables": json.dumps({asset: [each.rows, each.content_hash] for asset, each in states.items()}),
        "files": json.dumps(dict(files or {})),
        "settings": json.dumps(dict(settings or {})),
    }


def _ensure_schema(lake: "Lake") -> None:
    """Create the table of pins; one cheap look if it is there."""
    with lake.catalog() as catalog:
        if _is_there(catalog):
            return
    # IF NOT EXISTS is not safe against a second process that creates the same.
    with only_one(lake), lake.catalog(write=True) as catalog:
        catalog.execute(read_sql("postgres/pins/schema.sql"))


def versions(connection: "duckdb.DuckDBPyConnection") -> dict[int, datetime]:
    """When each version was written."""
    rows = connection.execute(f"SELECT snapshot_id, snapshot_time FROM {METADATA}.ducklake_snapshot")
    return dict(rows.fetchall())


def contents(then: "Lake", tables: Collection[str] | None = None) -> dict[str, TableState]:
    """What the tables of a version hold, by asset, as its ledger has it.

    Args:
        then: the lake at that version.
        tables: assets; all that it has if None.

    Raises:
        LookupError: it does not have one of them.
    """
    with then.get_connection() as connection:
        known = {each.asset: each for each in ledger.contracts_of_tables(connection)}
        if missing := [asset for asset in tables or () if asset not in known]:
            raise LookupError(
                f"the lake has no table {missing[0]} at that version; it has {', '.join(sorted(known)) or 'none'}."
            )
        noted, states = ledger.opened(connection), {}
        for asset in sorted(known if tables is None else set(tables)):
            buckets = noted.buckets(known[asset])
            if buckets.keys() != noted.buckets(known[asset], any_version=True).keys():
                # Some of it was hashed in another way by a former release.
                buckets = live(connection, known[asset])
            states[asset] = table_state(buckets)
        return states


def _rows(catalog: "psycopg.Connection", name: str | None) -> list[Pin]:
    if not _is_there(catalog):
        return []
    return [
        _pin(row) for row in catalog.execute(read_sql("postgres/pins/all.sql"), {"name": name}).fetchall()
    ]


def _pin(row: tuple[Any, ...]) -> Pin:
    name, version, written_at, pinned_at, run_id, hash_version, noted, files, settings = row
    tables = {asset: TableState(*state) for asset, state in noted.items()}
    return Pin(name, version, written_at, pinned_at, run_id, hash_version, tables, files, settings)


def _is_there(catalog: "psycopg.Connection") -> bool:
    found = catalog.execute("SELECT to_regclass('public.ml_assets_pins') IS NOT NULL").fetchone()
    return bool(found and found[0])


def _former(connection: "duckdb.DuckDBPyConnection") -> dict[str, tuple[int, datetime]]:
    """By name, the version and the time of pinning of the pins that releases before have made."""
    if ("ledger", "pins") not in tables_of(connection):
        return {}
    rows = connection.execute(f"SELECT name, version, pinned_at FROM {_FORMER}").fetchall()
    return {name: (version, at) for name, version, at in rows}


def _taken(name: str) -> LookupError:
    return LookupError(
        f"A version is pinned as {name!r} already: choose another name, or let that one go first "
        f"('ml-assets features unpin {name}')."
    )


def _unknown(name: str, held: Collection[str]) -> LookupError:
    known = f"{counted(len(held), 'pin')}: {', '.join(sorted(held))}" if held else "none"
    return LookupError(f"no version is pinned as {name!r}; there are: {known}.")
