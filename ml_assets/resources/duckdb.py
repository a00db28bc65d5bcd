"""DuckLake: DuckDB as the engine, Parquet files as the data, PostgreSQL as the catalog.

Every process has an in-memory DuckDB of its own with the lake attached (see connections.py), so any number of
them read and write at once. The extensions are loaded straight from their wheels: nothing is downloaded and
nothing is written to the user's home.
"""

import os
import re
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_duckdb import DuckDBResource
from pydantic import Field
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from ml_assets.errors import StoreUnavailable, missing_table
from ml_assets.lib.faults import StatementTimeout, one_sentence
from ml_assets.lib.object_store import (
    EXTENSIONS,
    TELLS_KEYS,
    ObjectStore,
    UrlStyle,
    fault_of,
    host_of,
    prefix_of,
)
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.resources.base import (
    CONNECT_TIMEOUT_S,
    HOME,
    RunLabel,
    check_health,
    connecting,
    embedded_url,
    for_reading_alone,
    or_database,
    plain,
    require_scheme,
    unavailable,
    with_database,
)
from ml_assets.services.home import private_home
from ml_assets.settings import redact_url
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb import connections, inlining
from ml_assets.stores.duckdb.extensions import extension_file, not_installed
from ml_assets.stores.duckdb.inlining import METADATA
from ml_assets.tables.progress import hide_progress_bar
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    import duckdb
    import psycopg
    import pyarrow as pa

    from ml_assets.resources.catalog import PostgresResource
    from ml_assets.tables.land import Rows

CATALOG_DATABASE = "lake"
"""PostgreSQL database that holds the catalog."""

_CREDENTIAL = "lake_catalog"
"""DuckDB's name for the catalog's password."""

_FILES_CREDENTIAL = "lake_files"
"""DuckDB's name for the key to the files in an object store."""

_INTERRUPT_EVERY_S = 0.02
_VANISHED_MS = 15_000
_CONVERSION_S = 60.0
"""How long a table's inlined rows are tried to be moved while others commit."""
_ROW_GROUP = 61_440
"""Rows of a Parquet row group in a new lake, half of DuckDB's own number: two threads write a day of 100,000."""

_REMOVING = ("ducklake_cleanup_old_files", "ducklake_delete_orphaned_files")
"""Functions of DuckLake that remove files."""

_REFUSED = (*_REMOVING, TELLS_KEYS)
"""Functions that no query of somebody's may call."""

_EXTRA = ", or 'pip install ml-assets[s3]' for all that a lake in an object store needs"

SCHEMAS = ("intake", "raw", "features")
_SCHEMES = ("postgresql", "postgres")


class DuckLakeResource(RunLabel, DuckDBResource):
    """A lake whose catalog is a PostgreSQL database.

    Args:
        home: folder of the embedded stores and of temporary files.
        catalog_url: PostgreSQL URL of the catalog, by default its database `lake`; empty means that of the server of
            `postgres_url`.
        postgres_url: PostgreSQL URL of the project; empty means the embedded server.
        data_path: folder or object-store prefix of the Parquet files; empty means `lake` under `home`.
        s3_endpoint, s3_region, s3_url_style, s3_ca_file: as `ObjectStore`, of a prefix that begins with s3://. The key
            is found by AWS's own rules: environment, profile, single sign-on, role of the machine.
        memory_limit: what a process may take before it spills to `home`, for reading and for writing.
        threads: of a process, for reading and for writing; 0 means all cores.
        query_timeout_s, write_timeout_s: see `limit`.
        version: of the lake, as which it is attached; the newest one if None (see `at`).
        read_only: let nothing be changed, whoever asks.
    """

    database: str = ":memory:"
    # Opened for loading our extensions, then locked: see _load_extensions.
    connection_config: dict[str, Any] = {
        "allow_unsigned_extensions": True,
        "autoinstall_known_extensions": False,
    }
    home: str = HOME
    catalog_url: str = Field(default="", repr=False)
    postgres_url: str = Field(default="", repr=False)
    data_path: str = ""
    s3_endpoint: str = ""
    s3_region: str = ""
    s3_url_style: UrlStyle = "auto"
    s3_ca_file: str = ""
    memory_limit: str = "2GB"
    threads: int = 0
    query_timeout_s: float = 30.0
    write_timeout_s: float = 600.0
    version: int | None = None
    read_only: bool = False

    def at(self, version: int) -> "DuckLakeResource":
        """The whole lake as it stood at a version: every table, and the ledger of what they held; for reading.

        Args:
            version: of `lake.snapshots()`. One that was expired is told when a connection is asked for.
        """
        return self.model_copy(update={"version": version})

    @property
    def data(self) -> str:
        """Where the Parquet files lie: an absolute folder or an object-store prefix.

        Raises:
            StoreUnavailable: it is a URL that is no such prefix.
        """
        if not self.data_path:
            return str(Path(os.path.abspath(self.home)) / "lake")
        if not self._is_remote:
            return os.path.abspath(self.data_path)
        try:
            return prefix_of(self.data_path)
        except ValueError as fault:
            raise StoreUnavailable(
                f"The lake's files cannot lie at {redact_url(self.data_path)!r} ({fault}): correct ML_ASSETS_LAKE_DATA."
            ) from None

    @property
    def _is_remote(self) -> bool:
        return "://" in self.data_path

    @property
    def _object_store(self) -> ObjectStore:
        return ObjectStore(self.s3_endpoint, self.s3_region, self.s3_url_style, self.s3_ca_file)

    def resolved_catalog_url(self) -> str:
        """PostgreSQL URL of the catalog.

        Raises:
            StoreUnavailable: a configured URL is none of PostgreSQL's, or the embedded server cannot start.
        """
        catalog_url, postgres_url = plain(self.catalog_url), plain(self.postgres_url)
        if catalog_url:
            url = require_scheme("DuckLake's catalog", catalog_url, _SCHEMES, "ML_ASSETS_LAKE_URL")
            return or_database(url, CATALOG_DATABASE)
        if postgres_url:
            url = require_scheme("DuckLake's catalog", postgres_url, _SCHEMES, "ML_ASSETS_POSTGRES_URL")
        else:
            url = embedded_url("postgres", self.home)
        return with_database(url, CATALOG_DATABASE)

    @contextmanager
    def get_connection(self, write: bool = False) -> "Iterator[duckdb.DuckDBPyConnection]":
        """A connection with the lake attached as `lake` and in use, TimeZone UTC; closed after the block.

        Statements run in autocommit until `BEGIN`; an open transaction is rolled back when the block ends.

        Args:
            write: allow changes. Without it the lake is attached read-only (temporary tables still work).

        Raises:
            StoreUnavailable: the catalog does not answer after three tries, or it is another lake's.
        """
        connection = self.open(write)
        try:
            yield connection
        finally:
            connections.close(connection)

    def open(self, write: bool = False) -> "duckdb.DuckDBPyConnection":
        """A connection as `get_connection` gives it, for lazy relations that outlive any block.

        It is closed when the last relation made from it is gone.
        """
        self._refuse_writing(write)
        url = self.resolved_catalog_url()
        # The URL too: the statement has no password.
        statement = self._attach_statement(url, *([] if write else self._reading))
        key = (url, statement, self.home, self.memory_limit, self.threads, self._object_store)
        connection = connections.connection(key, lambda: self._fresh(write))
        try:
            connection.execute("SET TimeZone = 'UTC'")
            hide_progress_bar(connection)
            # Rows of each partition that a write keeps in memory beyond the limit: two row groups' worth.
            connection.execute("SET partitioned_write_flush_threshold = 131072")
            connection.execute("USE lake")
        except BaseException:
            connections.close(connection)
            raise
        return connection

    def _fresh(self, write: bool) -> "duckdb.DuckDBPyConnection":
        """An instance of DuckDB with the lake attached."""
        import duckdb

        if write and self.version is not None:
            raise ValueError(
                f"version {self.version} of the lake is past: it can be read, and nobody writes it"
            )
        connection = duckdb.connect(self.database, config=self.connection_config)
        try:
            self._configure(connection, write)
            if self._is_remote:
                self._open_object_store(connection)
            self._attach(connection, write)
        except BaseException:
            connections.close(connection)
            raise
        return connection

    def _refuse_writing(self, write: bool) -> None:
        if write and self.read_only:
            raise for_reading_alone("The lake")
        if write and self.version is not None:
            raise ValueError(
                f"version {self.version} of the lake is past: it can be read, and nobody writes it"
            )

    @contextmanager
    def separate(self) -> "Iterator[duckdb.DuckDBPyConnection]":
        """A connection for writing to an instance of DuckDB of its own, whose global settings are nobody else's.

        Raises:
            StoreUnavailable: as `get_connection`.
        """
        self._refuse_writing(write=True)
        connection = self._fresh(write=True)
        try:
            yield connection
        finally:
            connections.close(connection)

    @contextmanager
    def catalog(self, write: bool = False) -> "Iterator[psycopg.Connection]":
        """One transaction in the catalog's PostgreSQL.

        Args:
            write: allow changes, with the longer time-out.

        Raises:
            StoreUnavailable: the server does not answer after three tries.
        """
        self._refuse_writing(write)
        with self._catalog_database().connect(write) as connection:
            yield connection

    @contextmanager
    def catalog_statements(self) -> "Iterator[psycopg.Connection]":
        """A connection to the catalog's PostgreSQL on which each statement stands alone.

        Raises:
            StoreUnavailable: the server does not answer after three tries.
        """
        with self._catalog_database().statements() as connection:
            yield connection

    def _catalog_database(self) -> "PostgresResource":
        from ml_assets.resources.catalog import database

        return database(self.resolved_catalog_url(), self.query_timeout_s, self.write_timeout_s)

    @contextmanager
    def limit(
        self, connection: "duckdb.DuckDBPyConnection", write: bool = False, what: str = "a DuckDB statement"
    ) -> Iterator[None]:
        """Interrupt what runs on the connection if the block takes longer than the time-out.

        DuckDB has no statement time-out of its own; put each long statement into such a block.

        Args:
            write: use the time-out of bulk writes instead of that of queries.
            what: what the block does, for the sentence.

        Raises:
            StatementTimeout: the block was interrupted.
        """
        seconds = self.write_timeout_s if write else self.query_timeout_s
        expired, done = threading.Event(), threading.Event()

        def watch() -> None:
            if done.wait(seconds):
                return
            expired.set()
            # Again and again, since between two statements nobody hears it.
            while not done.wait(_INTERRUPT_EVERY_S):
                connection.interrupt()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        except Exception as fault:
            # An Arrow stream reports the interruption as an OSError.
            if not expired.is_set() or "INTERRUPT" not in str(fault):
                if told := self._fault_of_files(fault):
                    raise told from fault
                raise
            name = "WRITE" if write else "QUERY"
            raise StatementTimeout(
                f"{what} took longer than {seconds:g} s: narrow it, or raise ML_ASSETS_{name}_TIMEOUT_S."
            ) from fault
        finally:
            done.set()
            watcher.join()

    def reader(
        self,
        sql: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        batch_rows: int = 100_000,
        bulk: bool = False,
    ) -> "pa.RecordBatchReader":
        """A query's rows as a stream of Arrow batches, whatever their number.

        The reader owns its connection and closes it when it is exhausted or dropped. The time-out counts the
        time that DuckDB takes for each batch, not the time that the consumer takes.

        Args:
            sql: a SELECT; tables of the lake as `schema.table`.
            parameters: bound values, by position (`?`, `$1`) or by name (`$name`).
            batch_rows: rows in a batch, at most.
            bulk: use the time-out of bulk writes instead of that of queries.

        Raises:
            StoreUnavailable: as `get_connection`.
            duckdb.Error: the query is wrong.
        """
        from ml_assets.tables.arrow_types import stream as noted_stream

        with ExitStack() as stack:
            connection = stack.enter_context(self.get_connection())
            with self.limit(connection, write=bulk):
                stream = connection.execute(sql, parameters).to_arrow_reader(batch_rows)
            batches = self._batches(connection, stream, stack.pop_all(), bulk)
        next(batches)  # into its try block, so that dropping the reader unread closes the connection too
        return noted_stream(stream.schema, batches)

    @contextmanager
    def asking(self) -> "Iterator[Callable[[str], Sequence[Sequence[Any]]]]":
        """A function that answers one statement after the other with its rows, over one connection."""
        with self.get_connection() as connection, self.limit(connection):
            yield lambda statement: connection.execute(statement).fetchall()

    def answer(self, query: str) -> "pa.Table":
        """What one query answers; the lake is attached read-only.

        Raises:
            Refusal: the query is wrong, is no query, or would change something.
            StoreUnavailable: as `get_connection`.
            StatementTimeout: it took longer than queries may.
        """
        with _told(), self.get_connection() as connection, self.limit(connection):
            _refuse_change(connection, query)
            return connection.execute(query).to_arrow_table()

    def question(self, query: str) -> "pa.RecordBatchReader":
        """What one query answers as a stream, as `reader` gives it; for queries that are not ours.

        Raises:
            Refusal, StoreUnavailable, StatementTimeout: as `answer`.
        """
        with _told():
            with self.get_connection() as connection, self.limit(connection):
                _refuse_change(connection, query)
            return self.reader(query)

    def _batches(
        self,
        connection: "duckdb.DuckDBPyConnection",
        stream: "pa.RecordBatchReader",
        owner: ExitStack,
        bulk: bool,
    ) -> "Iterator[Any]":
        with owner:
            yield None
            while True:
                with self.limit(connection, write=bulk):
                    batch = next(stream, None)
                if batch is None:
                    return
                yield batch

    def store_batch_predictions(self, predictions: "Rows") -> Path:
        """Hand predictions to the graph, which carries them on to `ml_predictions`; see `land`.

        Args:
            predictions: columns of the stream `predictions`, many at once.

        Returns:
            The landing file. The sensors take it in within a minute, `ml-assets refresh` at once.
        """
        from ml_assets.tables.land import land

        return land(Path(os.path.abspath(self.home)) / "landing", "predictions", predictions)

    def analyze_model_performance(self, experiment: str) -> "pa.Table":
        """How the models of one experiment did, hour by hour, newest first.

        Raises:
            StoreUnavailable: `duckdb/model_performance_events` was never materialized.
        """
        import duckdb

        sql = read_sql("duckdb/operations/analyze_model_performance.sql")
        try:
            return self.reader(sql, {"experiment": experiment}).read_all()
        except duckdb.CatalogException as fault:
            raise missing_table("duckdb/model_performance_events") from fault

    def location(self) -> str:
        """The URL of the store, as status shows it (without its password)."""
        return self.resolved_catalog_url()

    def health(self) -> StoreHealth:
        """Whether catalog and data can be reached, with DuckDB's version. Never raises."""
        return check_health(self._probe)

    def _probe(self) -> StoreHealth:
        import duckdb

        self.resolved_catalog_url()  # before any folder is made
        # An instance of its own, since attaching has a time-out and asking an attached catalog has none.
        connection = self._fresh(write=False)
        try:
            with self.limit(connection):
                connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchone()
        finally:
            connections.close(connection)
        return StoreHealth("healthy", duckdb.__version__)

    def _configure(self, connection: "duckdb.DuckDBPyConnection", write: bool) -> None:
        self._load_extensions(connection)
        # A folder of its own per instance: DuckDB's temporary files have fixed names. Reading makes no home.
        elsewhere = not write and not Path(self.home).exists()
        folder = Path(tempfile.gettempdir()) if elsewhere else Path(self.home) / "tmp" / "duckdb"
        spill = folder / uuid.uuid4().hex
        try:
            private_home(Path(self.home))
            spill.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise StoreUnavailable(
                f"DuckDB cannot make its temporary folder ({fault}): set ML_ASSETS_HOME to a writable folder."
            ) from fault
        connection.execute(f"SET temp_directory = {quote_literal(str(spill))}")
        connection.execute(f"SET memory_limit = {quote_literal(self.memory_limit)}")
        if self.threads:
            connection.execute(f"SET threads = {self.threads:d}")
        if not self._is_remote:
            # Memory is not kept for files that were read; the operating system has them.
            connection.execute("SET enable_external_file_cache = false")
        hide_progress_bar(connection)

    def _load_extensions(self, connection: "duckdb.DuckDBPyConnection") -> None:
        for name in ("postgres_scanner", "ducklake", *(EXTENSIONS if self._is_remote else ())):
            path = extension_file(name)
            if not path.exists():
                raise StoreUnavailable(f"{not_installed(name)}{_EXTRA if name in EXTENSIONS else ''}.")
            connection.execute(f"LOAD {quote_literal(str(path))}")
        # Checking a signature hashes 40 MB, four fifths of the whole set-up; these files come from wheels
        # whose hashes the installer has checked. DuckDB does not let this be opened again.
        connection.execute("SET allow_unsigned_extensions = false")

    def _open_object_store(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Give the instance a key to the files below the prefix alone, and see that the store lists them.

        It is asked before the lake is attached, since a new catalog keeps the prefix that it was made with, wrong or not.

        Raises:
            StoreUnavailable: the endpoint is no URL, there is no key, or the store does not answer or refuses.
        """
        import duckdb

        store = self._object_store
        try:
            if store.endpoint:
                host_of(store.endpoint)
        except ValueError as fault:
            raise StoreUnavailable(
                f"The object store of the lake's files cannot be reached ({fault}): set ML_ASSETS_S3_ENDPOINT to a URL "
                "such as https://storage.example.com:9000."
            ) from None
        for statement in store.settings():
            connection.execute(statement)
        try:
            connection.execute(store.secret(_FILES_CREDENTIAL, self.data, _has_keys()))
            self._marks(connection)
        except duckdb.Error as fault:
            if told := self._fault_of_files(fault):
                raise told from fault
            raise

    def _marks(self, connection: "duckdb.DuckDBPyConnection") -> list[str]:
        """Marks of all catalogs that have their data here."""
        listed = connection.execute(f"FROM glob({quote_literal(self.mark('*'))})").fetchall()
        return [name for (name,) in listed]

    def _fault_of_files(self, fault: BaseException) -> StoreUnavailable | None:
        """What to raise where the object store is at fault; None if it is not."""
        if not self._is_remote or isinstance(fault, StoreUnavailable) or not (found := fault_of(fault)):
            return None
        at = f" (endpoint {self.s3_endpoint})" if self.s3_endpoint else ""
        return StoreUnavailable(
            f"The lake's files at {self.data}{at} cannot be used ({found.cause}): {found.remedy}."
        )

    def is_loss(self, fault: BaseException) -> bool:
        """Whether a fault of reading means that files of the lake are gone, and not that they cannot be reached."""
        import duckdb

        if self._is_remote:
            return (found := fault_of(fault)) is not None and found.is_loss
        # Of a file far behind, whoever reads a stream as Arrow is told by an error of Python's own.
        return isinstance(fault, duckdb.IOException) or (
            isinstance(fault, OSError) and str(fault).startswith("IO Error:")
        )

    def _attach(self, connection: "duckdb.DuckDBPyConnection", write: bool) -> None:
        import duckdb

        url = self.resolved_catalog_url()
        self._keep_password(connection, url)
        try:
            if write:
                self._attach_retrying(connection, url)
            else:
                self._attach_readable(connection, url)
        except (duckdb.Error, OSError) as fault:
            if told := self._fault_of_files(fault):
                raise told from None
            # Without `from`: the driver's message may hold the password.
            cause = one_sentence(fault).rpartition("Unable to connect to Postgres at ")[2]
            raise unavailable("DuckLake's catalog", url, cause, self._remedy(cause)) from None

    def _keep_password(self, connection: "duckdb.DuckDBPyConnection", url: str) -> None:
        """Give the instance the catalog's password as a secret, of which no query shows more than its name.

        What stands in the statement that attaches the lake is shown by `duckdb_databases()` to whoever may query.
        """
        from psycopg.conninfo import conninfo_to_dict

        password = conninfo_to_dict(url).get("password")
        if password is not None:
            connection.execute(
                f"CREATE OR REPLACE TEMPORARY SECRET {_CREDENTIAL} "
                f"(TYPE postgres, PASSWORD {quote_literal(str(password))})"
            )

    def _attach_readable(self, connection: "duckdb.DuckDBPyConnection", url: str) -> None:
        import duckdb

        statement = self._attach_statement(url, *self._reading)
        try:
            connecting(duckdb.IOException)(connection.execute, statement)
        except duckdb.InvalidInputException:  # there is no lake yet: an empty one is what a reader expects
            self._attach_retrying(connection, url)
            connection.execute("DETACH lake")
            connection.execute(statement)

    @property
    def _reading(self) -> list[str]:
        """Options by which the lake is attached for reading."""
        return ["READ_ONLY", *([] if self.version is None else [f"SNAPSHOT_VERSION {self.version:d}"])]

    def _attach_retrying(self, connection: "duckdb.DuckDBPyConnection", url: str) -> None:
        import duckdb

        # A fresh catalog is filled by whoever comes first; those who collide with it try again.
        retry = connecting(
            duckdb.IOException, duckdb.TransactionException, if_message="Failed to initialize DuckLake"
        )
        retry(self._attach_writable, connection, url)

    def _attach_writable(self, connection: "duckdb.DuckDBPyConnection", url: str) -> None:
        if not self._is_remote:
            Path(self.data).mkdir(parents=True, exist_ok=True)
        connection.execute("DETACH DATABASE IF EXISTS lake")
        connection.execute(self._attach_statement(url))
        # One transaction, so that whoever collides does so once, and the loser leaves nothing behind.
        connection.execute("BEGIN")
        present = {
            name
            for (name,) in connection.execute(
                "SELECT schema_name FROM duckdb_schemas() WHERE database_name = 'lake'"
            ).fetchall()
        }
        missing = [schema for schema in SCHEMAS if schema not in present]
        for name in missing:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quote_identifier(name)}")
        if len(missing) == len(SCHEMAS):  # a new lake; another one's options are its operator's
            connection.execute(f"CALL lake.set_option('parquet_row_group_size', {_ROW_GROUP})")
            connection.execute(f"CALL lake.set_option('{inlining.OPTION}', 0)")
        connection.execute("COMMIT")
        if missing or (self._is_remote and self._is_unsigned(connection)):
            self._sign(connection)
        if not inlining.is_off(connection):
            self._stop_inlining(connection, url)

    def _stop_inlining(self, connection: "duckdb.DuckDBPyConnection", url: str) -> None:
        """Move what a lake of before keeps in its catalog into files, and let it keep nothing there any more.

        Whoever attaches the lake for writing comes through here first, so all writers wait until it is done.
        """
        import duckdb
        import psycopg

        with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S) as lock:
            lock.execute(f"SET statement_timeout = {round(self.write_timeout_s * 1000)}".encode())
            lock.execute(
                "SET idle_in_transaction_session_timeout = 0"
            )  # it does nothing while rows are moved
            lock.execute("SELECT pg_advisory_xact_lock(hashtextextended('ml-assets inlining', 0))")
            # A process of the former version may still be committing; nothing is moved by an attempt that meets it.
            retry = Retrying(
                retry=retry_if_exception_type(duckdb.TransactionException),
                stop=stop_after_delay(_CONVERSION_S),
                wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.2),
                reraise=True,
            )
            for schema, table in inlining.inlined(connection):
                retry(inlining.flush, connection, schema, table)
            connection.execute(f"CALL lake.set_option('{inlining.OPTION}', 0)")

    def _sign(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Leave the catalog's name among the data, so that nobody takes its files for rubbish."""
        import duckdb

        mark = quote_literal(self.mark(self.identity(connection)))
        try:
            connection.execute(
                f"COPY (SELECT 'files of this catalog lie here' AS text) TO {mark} (FORMAT json)"
            )
        except duckdb.Error as fault:
            if told := self._fault_of_files(fault):
                raise told from fault
            raise

    def _is_unsigned(self, connection: "duckdb.DuckDBPyConnection") -> bool:
        """Whether the catalog was made when nothing could be written to the store, and has not written since.

        Raises:
            StoreUnavailable: its files lie elsewhere, so what is written here would be parted from them. An embedded
                catalog follows whatever prefix it is given.
        """
        mark = self.mark(self.identity(connection))
        # Before the marks are listed: whoever writes the first file has signed.
        question = "SELECT NOT EXISTS (SELECT FROM public.ducklake_data_file)"
        ((is_empty,),) = connection.execute("FROM postgres_query(?, ?)", [METADATA, question]).fetchall()
        if Path(mark).name in {Path(each).name for each in self._marks(connection)}:
            return False
        if is_empty:
            return True
        raise StoreUnavailable(
            f"The lake's files do not lie at {self.data} (the catalog names files, and {mark} is not there): correct "
            "ML_ASSETS_LAKE_DATA, or copy the files there with their mark; if only that is lacking, make it, empty."
        )

    def identity(self, connection: "duckdb.DuckDBPyConnection") -> str:
        """The catalog's own identity, which it keeps wherever it is moved."""
        rows = connection.execute(
            f"SELECT schema_uuid FROM {METADATA}.ducklake_schema WHERE schema_name = 'main' LIMIT 1"
        ).fetchall()
        return str(rows[0][0])

    def mark(self, identity: str) -> str:
        """The file that says that a catalog has its data here; `*` for those of all catalogs."""
        return f"{self.data.rstrip('/')}/catalog-{identity}.json"

    def _attach_statement(self, url: str, *options: str) -> str:
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        given = {
            **conninfo_to_dict(url),
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "ml-assets",
            "keepalives_idle": 30,
            # A server that vanished without a word is given up; one that takes its time is not.
            "tcp_user_timeout": _VANISHED_MS,
        }
        secret = given.pop("password", None) is not None
        server = make_conninfo("", **given)
        target = quote_literal(f"ducklake:postgres:{server}")
        # Of the server's tables only the catalog's are looked at: in all schemas it takes twice as long.
        settings = [*options, f"DATA_PATH {quote_literal(self.data)}", "META_SCHEMA 'public'"]
        if secret:
            settings.append(f"META_SECRET {_CREDENTIAL}")
        if not plain(self.catalog_url) and not plain(self.postgres_url):
            # The embedded catalog is of this home alone, so its data is here even if the folder was moved.
            settings.append("OVERRIDE_DATA_PATH true")
        return f"ATTACH {target} AS lake ({', '.join(settings)})"

    def _remedy(self, fault: str) -> str:
        if "does not match existing data path" in fault:
            return (
                "set ML_ASSETS_LAKE_DATA to the folder that the catalog was made with, or use another catalog"
            )
        if "No snapshot found" in fault:
            return "that version was cleaned up, or never written; ask for another one"
        if "does not exist" in fault:
            return f"create the database on that server (CREATE DATABASE {CATALOG_DATABASE})"
        return "check that the server runs, that ML_ASSETS_LAKE_URL is right and the data folder writable"


@contextmanager
def _told() -> Iterator[None]:
    """Sentences for what is wrong with a query that is not ours."""
    import duckdb

    from ml_assets.tables.answers import not_answered, only_read

    try:
        yield
    except duckdb.Error as fault:
        if re.search("read-?only", str(fault)):
            raise only_read("DuckLake") from fault
        if isinstance(fault, duckdb.ProgrammingError | duckdb.DataError | duckdb.NotSupportedError):
            raise not_answered("DuckLake", fault) from fault
        raise


def _has_keys() -> bool:
    """Whether this process's environment has keys of AWS."""
    return all(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


def _refuse_change(connection: "duckdb.DuckDBPyConnection", query: str) -> None:
    """Refuse what is not one SELECT that changes nothing.

    Not by the attachment alone: COPY writes files, and ATTACH opens what it likes.
    """
    import duckdb

    from ml_assets.tables.answers import only_read

    kinds = [statement.type for statement in connection.extract_statements(query)]
    if kinds != [duckdb.StatementType.SELECT] or _calls_refused(connection, query):
        raise only_read("DuckLake")


def _calls_refused(connection: "duckdb.DuckDBPyConnection", query: str) -> bool:
    """Whether a SELECT calls what removes the lake's files or tells its key; attaching read-only prevents neither."""
    plan = connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()
    told = " ".join(str(cell) for row in plan for cell in row).lower()
    return any(name in told for name in _REFUSED)
