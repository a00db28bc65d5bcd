"""Keeping the lake small: old versions, small files, files that no version needs.

DuckLake keeps every version until it is expired, and files for longer than the versions that need them. One
round of maintenance

1. forgets entries of the ledger that later ones have replaced,
2. expires versions that were replaced before the retention begins; pinned ones stay (pins.py),
3. rewrites files of which a good part is deleted, and merges small files within their partition,
4. deletes files that were dropped by 2 or 3 longer ago than the grace, since somebody may still be reading,
5. deletes files that no version knows and nobody can still be writing: those of killed writers.

Rewriting conflicts with deletes by others at commit, so it is done under the lock that writers of the table
take. Step 5 goes by a listing of the data folder. It is left out, with a sentence that says so, where the
folder holds files of more than one catalog, or where the listing does not fit what the catalog knows: DuckLake
compares paths as text, and then files in use would look like rubbish (duckdb/ducklake#1105).

Whatever was rewritten is looked at before its writers get on: nothing may be left in the catalog (inlining.py says
why), and `count(*)` and a scan have to find the same rows.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from ml_assets.contracts import Contract
from ml_assets.errors import IntakeBusy, LakeDamaged
from ml_assets.lib.sql import quote_literal
from ml_assets.lib.versions import outlived
from ml_assets.lib.words import counted
from ml_assets.stores import touched_days
from ml_assets.stores.duckdb import inlining, ledger
from ml_assets.stores.duckdb.inlining import METADATA
from ml_assets.stores.duckdb.pins import only_one, pinned, versions
from ml_assets.stores.duckdb.write import writing
from ml_assets.stores.files import folder_bytes
from ml_assets.stores.touched_days import Postgres
from ml_assets.tables.store import Retention

if TYPE_CHECKING:
    import duckdb

    from ml_assets.stores.duckdb import Lake

_DELETED_SHARE = 0.3
"""Share of deleted rows from which rewriting a file pays."""

_SMALL = 4 * 2**20
"""Bytes of a table whose files are rewritten for any deleted row: until then they cannot be merged, and the ledger, of
which a few lines are replaced every day, would be a file of seven lines for every three days."""

_LISTINGS = 30
"""How often a folder is listed in which files keep vanishing."""

_OWN_FILE = re.compile(r"ducklake-[0-9a-f-]{36}(-delete)?\.parquet")


DAMAGE_REMEDY = (
    "Materialize quality/maintenance once more while nothing else runs, then 'ml-assets status --verify', and rebuild "
    "the tables that it names"
)


def size(lake: "Lake") -> int:
    """Bytes of the data folder, whether or not a version needs them.

    Raises:
        StoreUnavailable: the catalog of a lake in an object store does not answer.
    """
    if "://" not in lake.data:
        return folder_bytes(Path(lake.data))
    with lake.get_connection() as connection:
        listing = f"SELECT coalesce(sum(size), 0) FROM read_blob({quote_literal(f'{lake.data}/**')})"
        return int(_listed(lake, connection, listing)[0][0])


def maintain(lake: "Lake", postgres: Postgres, retention: Retention) -> Iterator[str]:
    """One round of maintenance; may be killed at any point and done again.

    Args:
        postgres: the project's PostgreSQL, in which intake holds the streams that it takes in.

    Raises:
        StoreUnavailable: catalog, data folder or PostgreSQL does not answer.
    """
    with only_one(lake), lake.get_connection(write=True) as connection:
        yield from _forget(connection)
        yield from _expire(lake, connection, retention)
        yield from _compact(lake, postgres, connection)
        oldest = quote_literal((datetime.now(UTC) - retention.grace).isoformat())
        call = f"ducklake_cleanup_old_files('lake', older_than => {oldest}::TIMESTAMPTZ)"
        if deleted := _asked(lake, connection, f"CALL {call}"):
            yield f"Deleted {counted(len(deleted), 'file')} that no version needs."
        yield from _delete_orphans(lake, connection, oldest)


def _forget(connection: "duckdb.DuckDBPyConnection") -> Iterator[str]:
    import duckdb

    try:
        forgotten = ledger.opened(connection).forget_replaced()
    except duckdb.TransactionException as busy:
        # A delete meets every insert into the same table; the next night is early enough.
        yield f"Left the ledger as it is, because it is being written ({busy})."
        return
    if forgotten:
        yield f"Forgot {counted(forgotten, 'line')} of the ledger that later ones have replaced."


def _asked(lake: "Lake", connection: "duckdb.DuckDBPyConnection", statement: str) -> list[tuple[Any, ...]]:
    with lake.limit(connection, write=True):
        return connection.execute(statement).fetchall()


def _listed(lake: "Lake", connection: "duckdb.DuckDBPyConnection", statement: str) -> list[tuple[Any, ...]]:
    """The same for a statement that lists a folder; again if a file vanished meanwhile, as a writer's may that failed."""
    import duckdb

    def vanished(fault: BaseException) -> bool:
        return isinstance(fault, duckdb.IOException) and "Cannot open file" in str(fault)

    tries = Retrying(
        retry=retry_if_exception(vanished),
        stop=stop_after_attempt(_LISTINGS),
        wait=wait_random(0, 0.1),
        reraise=True,
    )
    return tries(_asked, lake, connection, statement)


def _expire(lake: "Lake", connection: "duckdb.DuckDBPyConnection", retention: Retention) -> Iterator[str]:
    held = versions(connection)
    # The one that was current when the retention begins stays, so that every time since then can be read.
    oldest = datetime.now(UTC) - retention.versions
    expired = outlived(held, set(pinned(lake, connection).values()), oldest)
    if expired:
        _asked(lake, connection, f"CALL ducklake_expire_snapshots('lake', versions => {expired})")
        yield f"Expired {counted(len(expired), 'version')}; {len(held) - len(expired):,} can be read."


def _compact(lake: "Lake", postgres: Postgres, connection: "duckdb.DuckDBPyConnection") -> Iterator[str]:
    """Rewrite and merge the files of the tables that have many small or half deleted ones."""
    import duckdb

    contracts = {(each.schema, each.table): each for each in ledger.opened(connection).contracts()}
    before, held, small = _live_files(connection), inlining.inlined(connection), _small(connection)
    damaged: list[str] = []
    for schema, table in sorted({*_scattered(connection), *held}):
        try:
            with _writer_lock(lake, postgres, contracts.get((schema, table)), schema, table):
                if (schema, table) in held:
                    _flush(lake, schema, table)
                share = 0.0 if (schema, table) in small else _DELETED_SHARE
                _compact_one(lake, connection, schema, table, share)
                if damage := inlining.damage(connection, schema, table):
                    damaged.append(damage)
        except (duckdb.TransactionException, IntakeBusy) as busy:
            yield f"Left {schema}.{table} as it is, because it is being written ({busy})."
    if (after := _live_files(connection)) < before:
        yield f"Merged {before:,} files in use into {after:,}."
    if damaged:
        raise LakeDamaged(f"{'; '.join(damaged)}. {DAMAGE_REMEDY}")


def _flush(lake: "Lake", schema: str, table: str) -> None:
    """Move inlined rows into files, in an instance of its own, which does not repeat a commit."""
    with lake.separate() as connection, lake.limit(connection, write=True):
        inlining.flush(connection, schema, table)


def _compact_one(
    lake: "Lake", connection: "duckdb.DuckDBPyConnection", schema: str, table: str, deleted_share: float
) -> None:
    name, place = quote_literal(table), f"schema => {quote_literal(schema)}"
    for call in (
        f"ducklake_rewrite_data_files('lake', {name}, {place}, delete_threshold => {deleted_share})",
        f"ducklake_merge_adjacent_files('lake', {name}, {place})",
    ):
        _asked(lake, connection, f"CALL {call}")


@contextmanager
def _writer_lock(
    lake: "Lake",
    postgres: Postgres,
    contract: Contract | None,
    schema: str,
    table: str,
) -> Iterator[None]:
    """What keeps writers of the table away; nothing for tables that are only ever appended to."""
    stream = table.removeprefix("intake_")
    of_intake = schema == "intake" and stream in touched_days.LOCK_GROUPS
    with (
        touched_days.only_one(postgres, stream) if of_intake else nullcontext(),
        # Both: a table that has the name of one of intake's may be another project's asset.
        nullcontext() if contract is None else writing(lake, contract),
    ):
        yield


def _live_files(connection: "duckdb.DuckDBPyConnection") -> int:
    rows = connection.execute(
        f"SELECT count(*) FROM {METADATA}.ducklake_data_file WHERE end_snapshot IS NULL"
    ).fetchall()
    return int(rows[0][0])


def _scattered(connection: "duckdb.DuckDBPyConnection") -> list[tuple[str, str]]:
    """Tables with deletions, or with several files in one partition."""
    return connection.execute(
        f"""
        WITH value AS (
            SELECT data_file_id, list(partition_value ORDER BY partition_key_index) AS partition
            FROM {METADATA}.ducklake_file_partition_value GROUP BY data_file_id
        ), crowded AS (
            SELECT table_id FROM {METADATA}.ducklake_data_file LEFT JOIN value USING (data_file_id)
            WHERE end_snapshot IS NULL GROUP BY table_id, partition HAVING count(*) > 1
            UNION SELECT table_id FROM {METADATA}.ducklake_delete_file WHERE end_snapshot IS NULL
        )
        SELECT DISTINCT schema_name, table_name
        FROM crowded JOIN {METADATA}.ducklake_table AS t USING (table_id)
        JOIN {METADATA}.ducklake_schema AS s USING (schema_id)
        WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL
        ORDER BY ALL
        """
    ).fetchall()


def _small(connection: "duckdb.DuckDBPyConnection") -> set[tuple[str, str]]:
    """Tables whose files are rewritten for any deleted row."""
    found = connection.execute(
        f"""
        SELECT schema_name, table_name
        FROM {METADATA}.ducklake_data_file AS f JOIN {METADATA}.ducklake_table AS t USING (table_id)
        JOIN {METADATA}.ducklake_schema AS s USING (schema_id)
        WHERE f.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
        GROUP BY ALL HAVING sum(file_size_bytes) <= $1
        """,
        [_SMALL],
    )
    return set(found.fetchall())


def _delete_orphans(lake: "Lake", connection: "duckdb.DuckDBPyConnection", oldest: str) -> Iterator[str]:
    call = f"ducklake_delete_orphaned_files('lake', older_than => {oldest}::TIMESTAMPTZ"
    found = [row[0] for row in _listed(lake, connection, f"CALL {call}, dry_run => true)")]
    if not found:
        return
    if reason := _why_not_orphans(lake, connection, found):
        yield f"Left {counted(len(found), 'file')} in {lake.data} that this lake does not know: {reason}."
        return
    _listed(lake, connection, f"CALL {call})")
    yield f"Deleted {counted(len(found), 'file')} of killed writers."


def _why_not_orphans(lake: "Lake", connection: "duckdb.DuckDBPyConnection", found: list[str]) -> str:
    """Why files that no version knows may be somebody's all the same; "" if they are nobody's."""
    own = lake.mark(lake.identity(connection))
    # A lake that lies in a folder of this one is listed with it.
    signed = f"{lake.data.rstrip('/')}/**/{Path(lake.mark('*')).name}"
    marks = {row[0] for row in connection.execute(f"FROM glob({quote_literal(signed)})").fetchall()}
    others = sorted(mark for mark in marks if Path(mark).name != Path(own).name)
    if others:
        return (
            f"another catalog has its data there, as {others[0]} says; give each a folder of its own by "
            "ML_ASSETS_LAKE_DATA, or delete that file if its catalog is gone"
        )
    if not marks:
        return f"it may be another catalog's folder; if it is not, make an empty file {own}"
    strange = [file for file in found if not _OWN_FILE.fullmatch(Path(file).name)]
    if strange:
        return f"{strange[0]} was not written by a lake; move it elsewhere"
    known = _known_names(connection)
    used = [file for file in found if Path(file).name in known]
    if used:
        return (
            f"{used[0]} is in use under another path; run this where the catalog's data path and "
            "ML_ASSETS_LAKE_DATA are written alike"
        )
    return ""


def _known_names(connection: "duckdb.DuckDBPyConnection") -> set[str]:
    """Names of all files in the catalog; each holds a UUID, so a name says which file it is."""
    tables = ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")
    paths = " UNION ALL ".join(f"SELECT path FROM {METADATA}.{table}" for table in tables)
    return {Path(path).name for (path,) in connection.execute(paths).fetchall()}
