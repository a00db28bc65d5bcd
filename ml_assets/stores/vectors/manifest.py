"""The manifest in PostgreSQL: which entry of a collection is live for each key, and which version of that readers hold.

The table `ledger.chroma_manifest`, whose name is from when Chroma was the only such store, changes in one transaction,
and that is the commit of a write. Each commit counts the collection's version up, and a reader holds a shared lock on
the version that it began with. A collection stands in it under its name as `Collections.listed` gives it.

For cosine distance Chroma keeps a vector at length 1 and gives it back multiplied, which bends its last bit, and Qdrant
gives it at length 1. So the manifest also keeps each vector's own bits; a reader gets those, unless the store's vector
is another one.

What belongs here: the manifest's statements, and whether entries still follow their contract. What does not: anything
that asks the store.
"""

from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.sql_files import read_sql
from ml_assets.stores import postgres_table
from ml_assets.stores.vectors.port import BATCH
from ml_assets.tables.identity import refuse_new_identity
from ml_assets.tables.staging import HOUR_US, Staged, bucket_name, bucket_of_name
from ml_assets.tables.validation import Window, micros

if TYPE_CHECKING:
    import psycopg


Line = tuple[str, str, str, bytes]
"""A line of the manifest: key, id, partition, bits of the vector."""


def ensure(connection: "psycopg.Connection") -> None:
    """Create the ledger of writes and the manifest if they are not there."""
    postgres_table.ensure_ledger(connection)
    if not postgres_table.table_exists(connection, "ledger", "chroma_versions"):
        postgres_table.lock(connection, "ledger")
        connection.execute(read_sql("postgres/manifest/schema.sql"))


def fit(connection: "psycopg.Connection", collection: str, contract: Contract) -> None:
    """See whether the collection still follows its contract, and remember the contract.

    An entry cannot be altered, so the rules are stricter than those of tables/evolution.py: a column that goes is
    refused in every mode.

    Raises:
        ContractViolation: its columns or key are others than when it was made.
    """
    old = postgres_table.last_contract(connection, contract.asset)
    if old is not None and live_ids(connection, collection):
        refuse_new_identity(old, contract, _forget(contract))
        for column in old.columns:
            _refuse_difference(contract, column, contract.by_name.get(column.name))
        for column in contract.columns:
            if column.name not in old.by_name and not column.nullable:
                raise ContractViolation(f"{valueless(contract, column)} Nothing was written.")
    postgres_table.remember(connection, contract)


def _refuse_difference(contract: Contract, column: Column, new: Column | None) -> None:
    if new is None or (new.type, new.dimension) != (column.type, column.dimension):
        was, now = (_described(one) for one in (column, new))
        raise ContractViolation(
            f"{contract.asset}: column {column.name!r} was {was} when the collection was made and is {now} in "
            f"the contract; run {_forget(contract)} and materialize it again, or undo the change. Nothing was written."
        )
    if column.nullable and not new.nullable:
        raise ContractViolation(
            f"{contract.asset}: column {column.name!r} may be null in the collection's entries and may not be in "
            f"the contract; run {_forget(contract)} and materialize it again, or undo the change. Nothing was written."
        )


def _forget(contract: Contract) -> str:
    """What makes way for a collection of another contract, as sentences name it."""
    return f"ml_assets.stores.{contract.store}.maintenance.forget({contract.store}, postgres, contract)"


def valueless(contract: Contract, column: Column) -> str:
    """The sentence about a new column that may not be null."""
    return (
        f"{contract.asset}: the contract has a new column {column.name!r} that may not be null, and the entries have "
        "no value for it; make it nullable."
    )


def _described(column: Column | None) -> str:
    return (
        "missing" if column is None else f"{column.type}{f'({column.dimension})' if column.dimension else ''}"
    )


def live_ids(connection: "psycopg.Connection", collection: str) -> dict[str, str]:
    """The id of the live entry of each key, in order of the keys."""
    if not _exists(connection):
        return {}
    rows = connection.execute(read_sql("postgres/manifest/ids.sql"), {"collection": collection}).fetchall()
    return dict(rows)


def count(connection: "psycopg.Connection", collection: str) -> int:
    """How many entries are live."""
    [(entries,)] = connection.execute(
        read_sql("postgres/manifest/count.sql"), {"collection": collection}
    ).fetchall()
    return entries


def vectors(
    connection: "psycopg.Connection",
    collection: str,
    partitions: tuple[str | None, str | None] = (None, None),
) -> Generator[dict[str, bytes]]:
    """Ids and vectors' bits of the live entries, in order of the keys, some at a time.

    Args:
        partitions: of these only, see `partition_names`; of all if they are None.
    """
    if not _exists(connection):
        return
    first, end = partitions
    with connection.cursor(name="live_entries") as cursor:
        cursor.execute(
            read_sql("postgres/manifest/lines.sql"), {"collection": collection, "first": first, "end": end}
        )
        while lines := cursor.fetchmany(BATCH):
            yield dict(lines)


def some_vectors(connection: "psycopg.Connection", collection: str, entries: int) -> dict[str, bytes]:
    """Ids and vectors' bits of a sample of the live entries.

    Args:
        entries: how many, at most.
    """
    given = {"collection": collection, "entries": entries}
    return dict(connection.execute(read_sql("postgres/manifest/sample.sql"), given).fetchall())


def live_of_ids(
    connection: "psycopg.Connection", collection: str, ids: Iterable[str]
) -> list[tuple[str, str, bytes]]:
    """Id, partition and vector's bits of those of some entries that are live."""
    given = {"collection": collection, "ids": list(ids)}
    return connection.execute(read_sql("postgres/manifest/live_of_ids.sql"), given).fetchall()


def live_among(connection: "psycopg.Connection", collection: str, ids: Iterable[str]) -> set[str]:
    """Those of some entries that are live; quicker than `live_of_ids`, since it looks them up by their keys."""
    wanted = list(ids)
    given = {"collection": collection, "ids": wanted, "keys": [each.rpartition(":")[0] for each in wanted]}
    rows = connection.execute(read_sql("postgres/manifest/live_of_keys.sql"), given).fetchall()
    return {entry for (entry,) in rows}


def live_ids_of_keys(connection: "psycopg.Connection", collection: str, keys: Iterable[str]) -> list[str]:
    """The ids of the live entries of some keys, in order."""
    given = {"collection": collection, "keys": list(keys)}
    rows = connection.execute(read_sql("postgres/manifest/live_ids_of_keys.sql"), given).fetchall()
    return sorted(entry for (entry,) in rows)


def partition_names(contract: Contract, window: Window) -> tuple[str | None, str | None]:
    """First name of a window's partitions, and the first one after them; their order is that of time."""
    if contract.partition_column is None or window.start is None or window.end is None:
        return None, None
    # A day's name is the beginning of its hours' names, so that it bounds those, too.
    by_hour = replace(contract, partition_us=HOUR_US)
    first, end = (
        bucket_name(micros(edge), by_hour).removesuffix("-00:00") for edge in (window.start, window.end)
    )
    return first, end


def stage(connection: "psycopg.Connection", lines: Iterable[Line]) -> None:
    """Put the lines that the manifest shall have into a temporary table, which `flip` takes them from."""
    connection.execute(read_sql("postgres/manifest/stage.sql"))
    with connection.cursor() as cursor, cursor.copy("COPY live FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["text", "text", "text", "bytea"])
        for line in lines:
            copy.write_row(line)


def partitions_losing_rows(
    connection: "psycopg.Connection", collection: str, contract: Contract, staged: Staged
) -> set[int]:
    """Partitions that hold rows which will move into others because their time has changed.

    Raises:
        ContractViolation: such a row may not move, being outside the slice.
    """
    given = {"collection": collection}
    rows = connection.execute(read_sql("postgres/manifest/losing_rows.sql"), given).fetchall()
    keys = (key.partition(" ")[2] if contract.key_by_day else key for _, key in rows)
    return staged.partitions_losing_rows(
        (bucket_of_name(name), key) for (name, _), key in zip(rows, keys, strict=True)
    )


def flip(
    connection: "psycopg.Connection", collection: str, contract: Contract, staged: Staged, changed: set[int]
) -> bool:
    """Make the manifest say what is live, and nothing else in the slice; returns whether that changed it."""
    given: dict[str, Any] = {"collection": collection}
    deleted = 0
    if contract.mode != "upsert":
        names = None if staged.window.whole else [bucket_name(bucket, contract) for bucket in changed]
        deleted = connection.execute(
            read_sql("postgres/manifest/remove.sql"), {**given, "partitions": names}
        ).rowcount
    inserted = connection.execute(read_sql("postgres/manifest/put.sql"), given).rowcount
    connection.execute("DROP TABLE live")
    if not (deleted or inserted):
        return False
    _count_up(connection, collection)
    return True


def forget(connection: "psycopg.Connection", collection: str, contract: Contract) -> None:
    """Delete all that is noted of a collection: its lines, its contract, what was written to it."""
    connection.execute(read_sql("postgres/manifest/forget.sql"), {"collection": collection})
    _count_up(connection, collection)
    connection.execute("DELETE FROM ledger.contracts WHERE asset = %s", [contract.asset])
    postgres_table.record(connection, contract, {}, None)


def hold(connection: "psycopg.Connection", collection: str) -> int:
    """Keep the entries of the collection's version until the transaction ends; returns the version.

    Only what a later statement finds in the manifest is sure to be kept, since that may be a later version, but
    not an earlier one.
    """
    given = {"collection": collection}
    [(version, _)] = connection.execute(read_sql("postgres/manifest/hold.sql"), given).fetchall()
    return version


def has_readers_behind(connection: "psycopg.Connection", collection: str) -> bool:
    """Whether somebody reads who began before the last commit. Whoever begins later needs live entries only."""
    given = {"collection": collection}
    return connection.execute(read_sql("postgres/manifest/readers_behind.sql"), given).fetchone() is not None


def _count_up(connection: "psycopg.Connection", collection: str) -> None:
    connection.execute(read_sql("postgres/manifest/count_up.sql"), {"collection": collection})


def _exists(connection: "psycopg.Connection") -> bool:
    return postgres_table.table_exists(connection, "ledger", "chroma_manifest")
