"""The lake: DuckDB with DuckLake, whose catalog is PostgreSQL. One transaction a write."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ml_assets.contracts import Contract
from ml_assets.tables.contract_sql import CheckSQL
from ml_assets.tables.store import Maintained, Retention, StoreHealth, TableStore, Written
from ml_assets.tables.validation import Limits, Window

if TYPE_CHECKING:
    import duckdb
    import psycopg
    import pyarrow as pa

    from ml_assets.stores.touched_days import Postgres
    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Staged, TableState

__all__ = ["DuckLakeStore", "Lake", "LakeCatalog"]


class Lake(Protocol):
    """What the store needs of the resource that attaches the lake."""

    @property
    def data(self) -> str:
        """Where the Parquet files lie."""
        ...

    def get_connection(self, write: bool = False) -> "AbstractContextManager[duckdb.DuckDBPyConnection]":
        """A connection with the lake in use."""
        ...

    def at(self, version: int) -> "Lake":
        """The lake as it stood at a version, for reading."""
        ...

    def separate(self) -> "AbstractContextManager[duckdb.DuckDBPyConnection]":
        """A connection for writing to an instance of its own."""
        ...

    def limit(
        self, connection: "duckdb.DuckDBPyConnection", write: bool = False, what: str = ...
    ) -> AbstractContextManager[None]:
        """Interrupts what takes too long."""
        ...

    def reader(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None, batch_rows: int = ...
    ) -> "pa.RecordBatchReader":
        """A query's rows as a stream that owns its connection."""
        ...

    def catalog(self, write: bool = False) -> "AbstractContextManager[psycopg.Connection]":
        """One transaction in the catalog's PostgreSQL."""
        ...

    def catalog_statements(self) -> "AbstractContextManager[psycopg.Connection]":
        """A connection to the catalog's PostgreSQL on which each statement stands alone."""
        ...

    def is_loss(self, fault: BaseException) -> bool:
        """Whether a fault of reading means that files are gone."""
        ...

    def identity(self, connection: "duckdb.DuckDBPyConnection") -> str:
        """The catalog's own identity."""
        ...

    def mark(self, identity: str) -> str:
        """The file that says that a catalog has its data here."""
        ...

    def health(self) -> StoreHealth:
        """How the lake does."""
        ...


class LakeCatalog(Maintained):
    """The lake's catalog: a database of PostgreSQL, which is told of by itself.

    Args:
        lake: opens connections to it (resources/duckdb.py).
    """

    name: ClassVar[str] = "duckdb catalog"

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def size(self) -> int:
        from ml_assets.stores.postgres_table.maintenance import size

        with self._lake.catalog_statements() as connection:
            return size(connection)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.postgres_table.maintenance import maintain

        with self._lake.catalog_statements() as connection:
            yield from maintain(connection)


class DuckLakeStore(TableStore):
    """The tables of the lake.

    Args:
        lake: opens connections to the lake (resources/duckdb.py).
        postgres: the project's PostgreSQL, where intake holds its streams. Only maintenance needs it.
    """

    name: ClassVar[str] = "duckdb"
    prefix: ClassVar[str] = "duckdb"
    kind: ClassVar[str] = "ducklake"
    resources: ClassVar[tuple[str, ...]] = ("lake", "postgres")
    asks: ClassVar[str | None] = "lake"
    checks: ClassVar[CheckSQL] = CheckSQL(
        in_schema=True, key_number="('0x' || substr(key_hash, 3, 10))::BIGINT"
    )
    limits: ClassVar[Limits] = Limits("DuckLake")

    def __init__(self, lake: Lake, postgres: "Postgres | None" = None) -> None:
        self._lake = lake
        self._postgres = postgres

    @staticmethod
    def table_name(contract: Contract) -> str:
        return f"lake.{contract.schema}.{contract.table}"

    def write(self, contract: Contract, staged: "Staged") -> Written:
        from ml_assets.stores.duckdb.write import write, writing

        with (
            self._lake.get_connection(write=True) as connection,
            writing(self._lake, contract),
            self._lake.limit(connection, write=True, what=f"writing {contract.asset}"),
        ):
            return write(connection, contract, staged)

    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        from ml_assets.stores.duckdb.rows import read

        return read(self._lake, contract, columns, window)

    def found(self, place: "Place") -> "Found | None":
        from ml_assets.stores.duckdb.rows import found

        return found(self._lake, place)

    def contracts(self) -> list[Contract]:
        from ml_assets.stores.duckdb import ledger

        with self._lake.get_connection() as connection:
            return ledger.contracts_of_tables(connection)

    def last_contract(self, asset: str) -> Contract | None:
        from ml_assets.stores.duckdb import ledger

        with self._lake.get_connection() as connection:
            return ledger.opened(connection).last_contract(asset)

    def ledger_state(self, contract: Contract, any_version: bool = False) -> "TableState":
        from ml_assets.stores.duckdb import ledger
        from ml_assets.tables.staging import table_state

        with self._lake.get_connection() as connection:
            return table_state(ledger.opened(connection).buckets(contract, any_version))

    def live_state(self, contract: Contract) -> "TableState":
        from ml_assets.stores.duckdb.rows import live
        from ml_assets.tables.staging import table_state

        with self._lake.get_connection() as connection:
            return table_state(live(connection, contract))

    def damage(self, contract: Contract) -> str:
        from ml_assets.stores.duckdb import inlining

        with self._lake.get_connection() as connection:
            return inlining.damage(connection, contract.schema, contract.table)

    def make_tables(self, contracts: Iterable[Contract]) -> None:
        """Create those tables that are not there yet, empty, for queries that read them before their first write."""
        from ml_assets.stores.duckdb.write import make_tables

        make_tables(self._lake, contracts)

    def health(self) -> StoreHealth:
        return self._lake.health()

    def size(self) -> int:
        from ml_assets.stores.duckdb.maintenance import size

        return size(self._lake)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.duckdb.maintenance import maintain

        if self._postgres is None:
            raise ValueError(
                "the lake is maintained together with intake's locks: make its store of PostgreSQL's resource, too."
            )
        yield from maintain(self._lake, self._postgres, retention)

    def maintained(self) -> Sequence[Maintained]:
        # The catalog comes after, so that what the lake has freed there is vacuumed at once.
        return [self, LakeCatalog(self._lake)]
