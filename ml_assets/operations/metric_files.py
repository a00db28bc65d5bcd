"""Which files of raw_metrics have to be read for some runs.

A day holds the points of many runs, and a run's points may come on any day, however late: neither the lake's
partitions nor its statistics tell where those of one run are. So it is noted in PostgreSQL which runs each file holds.
Files never change, so the notes need no upkeep by who writes: whoever reads notes the files that are not known yet.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_assets.lib.sql import quote_literal
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb import inlining
from ml_assets.stores.touched_days import LOCK_SPACE, ensure_tables

if TYPE_CHECKING:
    import duckdb
    import psycopg

    from ml_assets.resources.postgres import PostgresResource

TABLE = ("raw", "raw_metrics")

ALL = "TRUE"
"""The condition that every row keeps."""

_LOCK = 21
"""Advisory lock of the notes, beside those of stores/touched_days.py."""

_AT_ONCE = 100
"""Files whose runs are read in one statement."""


def there(connection: "duckdb.DuckDBPyConnection") -> bool:
    """Whether the table was ever written."""
    return bool(
        connection.execute(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = $1 AND table_name = $2",
            TABLE,
        ).fetchall()
    )


def condition(
    connection: "duckdb.DuckDBPyConnection", postgres: "PostgresResource", run_ids: Sequence[str]
) -> str:
    """SQL that is true of every row of these runs, and by which the lake leaves out files that hold none.

    Args:
        connection: to the lake, in an open transaction: the condition is of the version that it reads.
        postgres: where the notes are.
        run_ids: whose points are to be read.
    """
    if TABLE in inlining.inlined(connection):
        return ALL  # rows that are in no file
    listed = connection.execute(
        "SELECT data_file FROM ducklake_list_files('lake', $1, schema => $2)", [TABLE[1], TABLE[0]]
    ).fetchall()
    paths = {path for (path,) in listed}
    if len(paths) < 2:
        return ALL
    _ensure_schema(postgres)
    known = _known(postgres, run_ids)
    if paths - known.keys():
        if not _note(connection, postgres, paths):
            return ALL
        known = _known(postgres, run_ids)
    # What somebody has forgotten meanwhile, who reads another version, is read.
    needed = sorted(path for path in paths if known.get(path, True))
    if len(needed) == len(paths):
        return ALL
    return f"filename IN ({', '.join(map(quote_literal, needed))})" if needed else "FALSE"


def _known(postgres: "PostgresResource", run_ids: Sequence[str]) -> dict[str, bool]:
    with postgres.connect() as connection:
        rows = connection.execute(read_sql("postgres/metric_files/of_runs.sql"), {"runs": list(run_ids)})
        return dict(rows.fetchall())


def _note(connection: "duckdb.DuckDBPyConnection", postgres: "PostgresResource", paths: set[str]) -> bool:
    """Note the runs of the files that are not known, and forget files that are no more.

    A few files a transaction: who is interrupted over a large table has done a part of it.

    Returns:
        whether the files could be told apart.
    """
    while True:
        with postgres.connect(write=True) as noted:
            noted.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_SPACE, _LOCK))
            before = {path for (path,) in noted.execute("SELECT path FROM ledger.metric_files").fetchall()}
            noted.execute("DELETE FROM ledger.metric_files WHERE path = ANY(%s)", (sorted(before - paths),))
            new = sorted(paths - before)[:_AT_ONCE]
            if not new:
                return True
            if not _note_some(connection, noted, new):
                noted.rollback()
                return False


def _note_some(
    connection: "duckdb.DuckDBPyConnection", noted: "psycopg.Connection", paths: Sequence[str]
) -> bool:
    numbers = dict(
        noted.execute(
            "INSERT INTO ledger.metric_files (path) SELECT unnest(%s::text[]) RETURNING path, file_id",
            (list(paths),),
        ).fetchall()
    )
    sql = read_sql("duckdb/operations/runs_of_files.sql").format(paths=", ".join(map(quote_literal, paths)))
    seen: set[str] = set()
    with (
        noted.cursor() as cursor,
        cursor.copy("COPY ledger.metric_file_runs (run_id, file_id) FROM STDIN") as rows,
    ):
        for batch in connection.execute(sql).to_arrow_reader(100_000):
            for path, run_id in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                seen.add(path)
                rows.write_row((run_id, numbers[path]))
    # A file of which no row was found: the lake lists files by other names than it reads them by.
    return seen == set(paths)


def _ensure_schema(postgres: "PostgresResource") -> None:
    ensure_tables(postgres, "ledger.metric_file_runs", "postgres/metric_files/schema.sql")
