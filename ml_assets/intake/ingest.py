"""One ingest of one stream: the protocol by which the lake (rows) and PostgreSQL (ledger) agree.

    1. claim the contents in the ledger, state `loading`
    2. append their rows to the lake, one commit
    3. make them live in the ledger, with their counts and the days that they touch, one commit

Raw tables read only live contents, so a process may be killed at any step. The next ingest holds the stream alone; it
removes the contents that were claimed and never went live, and takes them in again. A content that has to be read
again stays live meanwhile: step 2 replaces its old rows with the new ones.

This module claims, appends and counts. files.py and tracking.py bring the rows.
"""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from ml_assets.contracts import STREAMS, Contract, Stream
from ml_assets.contracts.raw import intake_table
from ml_assets.intake import ledger
from ml_assets.intake.judge import Bounds, register_functions, set_bounds
from ml_assets.intake.ledger import ContentRecord, Place
from ml_assets.lib.sql import qualified, quote_identifier
from ml_assets.stores import touched_days
from ml_assets.stores.touched_days import Postgres
from ml_assets.tables.duckdb_types import UNPARSED_TYPES
from ml_assets.tables.pause import writing

if TYPE_CHECKING:
    import duckdb
    import psycopg

STAGE = "stage"
"""Temporary table in which the rows of many small contents are collected, so that they share a commit."""


class Lake(Protocol):
    """What intake needs of the lake's resource."""

    home: str

    def get_connection(self, write: bool = False) -> "AbstractContextManager[duckdb.DuckDBPyConnection]":
        """A connection with the lake in use."""
        ...


@dataclass
class IntakeReport:
    """What one ingest of a stream did.

    Args:
        ingest_id: as in the ledger; "" if there was nothing to do.
        contents: files or runs that were read.
        rows_read, rows_quarantined: of these.
        retired: places that were withdrawn: runs that MLflow deleted, files that have another name now.
        days: days that were touched.
        skipped: reason by place for what was left alone.
        seconds: wall time.
    """

    ingest_id: str = ""
    contents: int = 0
    rows_read: int = 0
    rows_quarantined: int = 0
    retired: int = 0
    days: set[date] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@contextmanager
def ingesting(
    stream: Stream, lake: Lake, postgres: Postgres, bounds: Bounds, report: IntakeReport
) -> "Iterator[Ingest]":
    """Hold a stream, clear away what a killed ingest left, and take its rows in.

    Raises:
        IntakeBusy: another process takes in the same stream.
    """
    start = time.perf_counter()
    with touched_days.only_one(postgres, stream.name), lake.get_connection(write=True) as connection:
        ingest = Ingest(stream, connection, postgres, bounds, report, lake.home)
        ingest.prepare()
        yield ingest
        ingest.close()
    report.seconds += time.perf_counter() - start


class Ingest:
    """Holds the lake's connection and counts what is done with it."""

    def __init__(
        self,
        stream: Stream,
        connection: "duckdb.DuckDBPyConnection",
        postgres: Postgres,
        bounds: Bounds,
        report: IntakeReport,
        home: str,
    ) -> None:
        self.stream = stream
        self.connection = connection
        self.report = report
        self.table = qualified("lake", "intake", f"intake_{stream.name}")
        self._postgres = postgres
        self._home = home
        self.bounds = bounds

    def prepare(self) -> None:
        """Make tables and functions; remove what a killed ingest appended."""
        _create_tables(self.connection)
        contract = intake_table(self.stream)
        self.connection.execute(_create("TEMPORARY TABLE", STAGE, contract))
        register_functions(self.connection)
        set_bounds(self.connection, self.bounds)
        self._clear_abandoned()

    def _clear_abandoned(self) -> None:
        with self._postgres.connect() as connection:
            left = ledger.abandoned(connection, self.stream.name)
        if left:
            with writing(self._home, first=True):  # the lake's maintenance waits for whoever holds the stream
                self._remove(left)
                self.forget(left)

    def close(self) -> None:
        """Close the ingest, if there was one."""
        if self.report.ingest_id:
            with self._postgres.connect(write=True) as connection:
                ledger.end_ingest(connection, self.report.ingest_id)

    # --- claim ---

    def claim(self, places: Mapping[Place, str], origin: str) -> dict[str, ContentRecord]:
        """Claim those of the contents that are to be read; returns them by hash.

        These are the contents that the ledger does not have, and those that are marked to be read again.
        """
        with self._postgres.connect(write=True) as connection:
            if not self.report.ingest_id:
                self.report.ingest_id = uuid.uuid4().hex
                ledger.begin_ingest(connection, self.stream.name, self.report.ingest_id)
            states = ledger.content_states(connection, self.stream.name, places.values())
            marked = ledger.marked(connection, self.stream.name, places.values())
            fresh: dict[str, ContentRecord] = {}
            for place, content_hash in places.items():
                if (content_hash not in states or content_hash in marked) and content_hash not in fresh:
                    fresh[content_hash] = ContentRecord(
                        content_hash, origin, place.item_name, again=content_hash in states
                    )
            new = [content for content in fresh.values() if not content.again]
            ledger.claim(connection, self.stream.name, self.report.ingest_id, new)
        return fresh

    def forget(self, hashes: Sequence[str]) -> None:
        """Take back claims whose rows are not in the lake."""
        with self._postgres.connect(write=True) as connection:
            ledger.forget(connection, self.stream.name, hashes)

    # --- append ---

    def insert(
        self,
        target: str,
        select: str,
        arriving: tuple[pa.Schema, Iterable[pa.RecordBatch]] | None = None,
        **values: Any,
    ) -> None:
        """Insert what `judge_rows` selects.

        Args:
            target: `STAGE`, or the intake table in an open transaction.
            arriving: Arrow batches that the statement reads as the relation `arriving`.
            values: parameters of the statement.
        """
        if arriving:
            self.connection.register("arriving", pa.RecordBatchReader.from_batches(*arriving))
        try:
            self.connection.execute(f"INSERT INTO {target} BY NAME {select}", values or None)
        finally:
            if arriving:
                self.connection.unregister("arriving")

    def commit_stage(
        self, places: Mapping[Place, str], fresh: Mapping[str, ContentRecord], counts: Mapping[str, int]
    ) -> None:
        """Append the stage to the lake, then enter its contents in the ledger.

        Args:
            places: the content hash by place, also of places that the ledger had before.
            fresh: contents whose rows are in the stage.
            counts: rows that were read of each.
        """
        again = [content.content_hash for content in fresh.values() if content.again]
        self.connection.execute("BEGIN")
        before = self._remove(again) if again else set()
        self.connection.execute(f"INSERT INTO {self.table} BY NAME SELECT * FROM {STAGE} ORDER BY day")
        self.commit(places, fresh, counts, STAGE, before)
        self.connection.execute(f"TRUNCATE {STAGE}")

    def commit(
        self,
        places: Mapping[Place, str],
        fresh: Mapping[str, ContentRecord],
        counts: Mapping[str, int],
        arrived: str,
        before: Set[date] = frozenset(),
    ) -> None:
        """Commit the open transaction of the lake, then enter its contents in the ledger.

        Args:
            arrived: SQL of the relation that holds the rows of `fresh`.
            before: days of rows that these have replaced.
        """
        self._count(fresh, counts, arrived)
        # The ledger's dump and the lake's are begun while nobody commits here: neither has what the other lacks.
        with writing(self._home, first=True):
            self.connection.execute("COMMIT")
        with self._postgres.connect(write=True) as connection:
            days = {*before, *ledger.days_of(connection, self.stream.name, list(fresh))}
            ledger.go_live(connection, self.stream.name, self.report.ingest_id, list(fresh.values()))
            changed = ledger.put_places(connection, self.stream.name, places)
            days |= {day for content in fresh.values() for day in content.days}
            self._touch(connection, days, changed, f"SELECT run_id FROM {arrived}")
        self.report.contents += len(fresh)
        self.report.rows_read += sum(content.rows_read for content in fresh.values())
        self.report.rows_quarantined += sum(content.rows_quarantined for content in fresh.values())

    def withdraw(self, root: str, item_names: Sequence[str]) -> None:
        """Retire places; contents that lie nowhere else retire with them."""
        with self._postgres.connect(write=True) as connection:
            retired, changed = ledger.retire_places(connection, self.stream.name, root, item_names)
            self._touch(connection, set(), changed, "SELECT NULL WHERE false")
        self.report.retired += retired

    def erase(self, roots: Sequence[str], item_names: Sequence[str]) -> None:
        """Forget places; contents that lie nowhere else go with their rows, which are not kept as withdrawn ones are."""
        with self._postgres.connect(write=True) as connection:
            changed = ledger.erase_places(connection, self.stream.name, roots, item_names)
            self._touch(connection, set(), changed, "SELECT NULL WHERE false")
        # A kill before this leaves them to the next ingest.
        self._clear_abandoned()

    def _remove(self, hashes: Sequence[str]) -> set[date]:
        """Remove the rows of contents from the lake; returns their days.

        The ledger may have others: a ingest may have been killed between the two.
        """
        these = "unit_hash IN (SELECT unnest($hashes::VARCHAR[]))"
        rows = self.connection.execute(
            f"SELECT DISTINCT coalesce(day, $whole) FROM {self.table} "
            f"WHERE quarantine_reason IS NULL AND {these}",
            {"hashes": list(hashes), "whole": touched_days.WHOLE},
        ).fetchall()
        self.connection.execute(f"DELETE FROM {self.table} WHERE {these}", {"hashes": list(hashes)})
        return {day for (day,) in rows}

    def _count(self, fresh: Mapping[str, ContentRecord], counts: Mapping[str, int], arrived: str) -> None:
        """Fill in the contents' counts from the rows, and hold them against what was read."""
        rows = self.connection.execute(
            "SELECT unit_hash, quarantine_reason IS NULL, coalesce(day, $whole), count(*) "
            f"FROM {arrived} GROUP BY ALL",
            {"whole": touched_days.WHOLE},
        ).fetchall()
        for content_hash, good, day, count in rows:
            content = fresh[content_hash]
            content.rows_read += count
            if good:
                content.days[day] = count
            else:
                content.rows_quarantined += count
        for content_hash, content in fresh.items():
            if content.rows_read != counts[content_hash]:
                raise RuntimeError(
                    f"{content.item_name}: {counts[content_hash]:,} rows were read and {content.rows_read:,} judged; "
                    "nothing of it was taken in. This is a fault of ml-assets: report it with the file."
                )

    def _touch(
        self, connection: "psycopg.Connection", days: set[date], changed: Sequence[str], run_ids: str
    ) -> None:
        """Mark every day as changed on which the raw tables may come out differently now.

        Args:
            days: of the rows that have come.
            changed: contents that retired or came back.
            run_ids: SELECT of the runs that the rows which have come speak of.
        """
        days |= ledger.days_of(connection, self.stream.name, changed)
        run_days = self._run_days(changed, run_ids)
        touched_days.touch(
            connection, {(self.stream.name, day) for day in days} | {("runs", day) for day in run_days}
        )
        self.report.days |= days | run_days

    def _run_days(self, changed: Sequence[str], run_ids: str) -> set[date]:
        """Days on which runs stand that the new rows or the changed contents speak of.

        A late metric touches its run's day. A run that moves to another day leaves one behind, also when an old
        file comes back.
        """
        if self.stream.name not in ("runs", "metrics"):
            return set()
        rows = self.connection.execute(
            "SELECT DISTINCT day FROM lake.intake.intake_runs WHERE day IS NOT NULL AND run_id IN ("
            f"{run_ids} UNION ALL SELECT run_id FROM {self.table} "
            "WHERE unit_hash IN (SELECT unnest($changed::VARCHAR[])))",
            {"changed": list(changed)},
        )
        return {day for (day,) in rows.fetchall()}


def ensure_tables(lake: Lake) -> None:
    """Make the tables of intake, for who reads them before anything was taken in."""
    with lake.get_connection(write=True) as connection:
        _create_tables(connection)


def _create_tables(connection: "duckdb.DuckDBPyConnection") -> None:
    """Make what is missing: tables, and columns that a stream has gained since its table was made."""
    present = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() "
        "WHERE database_name = 'lake' AND schema_name = 'intake'"
    ).fetchall()
    for stream in STREAMS.values():
        contract = intake_table(stream)
        existing = {column for table, column in present if table == contract.table}
        table = qualified("lake", "intake", contract.table)
        if not existing:
            connection.execute(_create("TABLE", table, contract))
            continue
        for column in contract.columns:
            if column.name not in existing:
                given = f"{quote_identifier(column.name)} {UNPARSED_TYPES[column.type]}"
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {given}")


def _create(kind: str, name: str, contract: Contract) -> str:
    columns = ", ".join(f"{quote_identifier(c.name)} {UNPARSED_TYPES[c.type]}" for c in contract.columns)
    return f"CREATE {kind} IF NOT EXISTS {name} ({columns})"
