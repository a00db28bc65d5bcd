"""SQLite: one file, one transaction a write."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from ml_assets.contracts import Contract
from ml_assets.tables.contract_sql import CheckSQL
from ml_assets.tables.store import Retention, StoreHealth, TableStore, Written
from ml_assets.tables.validation import WHOLE, Limits, Window

if TYPE_CHECKING:
    from sqlite3 import Connection

    import pyarrow as pa

    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Staged, TableState

__all__ = ["SQLiteStore"]


_T = TypeVar("_T")


class SQLiteFile(Protocol):
    """What the store needs of the resource that opens the file."""

    @property
    def path(self) -> Path:
        """Where the file lies."""
        ...

    def connect(self, write: bool = False) -> "AbstractContextManager[Connection]":
        """One transaction."""
        ...

    def statements(self) -> "AbstractContextManager[Connection]":
        """A connection on which each statement stands alone."""
        ...

    def streamed(self, connection: "Connection", parts: Iterable[_T]) -> Iterator[_T]:
        """The same parts, each of which may take as long as a query."""
        ...

    def health(self) -> StoreHealth:
        """How the file does."""
        ...


class SQLiteStore(TableStore):
    """The tables of a SQLite file.

    Args:
        resource: opens connections to the file (resources/sqlite.py).
    """

    name: ClassVar[str] = "sqlite"
    prefix: ClassVar[str] = "sqlite"
    at_home: ClassVar[bool] = True
    kind: ClassVar[str] = "sqlite"
    resources: ClassVar[tuple[str, ...]] = ("sqlite",)
    asks: ClassVar[str | None] = "sqlite"
    checks: ClassVar[CheckSQL] = CheckSQL(
        day="substr({column}, 1, 10)",  # times are ISO text, of which a cast would take the number in front
        tables="SELECT name FROM sqlite_master WHERE type = 'table'",
        key_number="hex_number(substr(key_hash, 3, 10))",  # a function of the connection, as md5 is
    )
    limits: ClassVar[Limits] = Limits("SQLite", nul=False, nan=False, columns=2_000, row_bytes=1_000_000_000)

    def __init__(self, resource: "SQLiteFile") -> None:
        self._file = resource

    def write(self, contract: Contract, staged: "Staged") -> Written:
        from ml_assets.stores.sqlite.write import SQLiteTransaction
        from ml_assets.tables.write import write

        with self._file.connect(write=True) as connection:
            return write(SQLiteTransaction(connection, contract), staged)

    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.stores.sqlite.rows import select
        from ml_assets.tables.arrow_types import arrow_schema

        def batches() -> "Iterator[pa.RecordBatch]":
            with self._file.connect() as connection:
                yield from self._file.streamed(connection, select(connection, contract, columns, [window]))

        return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())

    def found(self, place: "Place") -> "Found | None":
        from ml_assets.stores.sqlite.rows import found_kinds, select
        from ml_assets.tables.found import found_table

        with self._file.connect() as connection:
            kinds = found_kinds(connection, place.table)

        def read(contract: Contract, columns: Sequence[str], window: Window) -> "Generator[pa.RecordBatch]":
            with self._file.connect() as connection:
                rows = select(connection, contract, columns, [window], place.table)
                yield from self._file.streamed(connection, rows)

        return found_table(place, kinds, read) if kinds else None

    def contracts(self) -> list[Contract]:
        from ml_assets.stores.sqlite import ledger

        with self._file.connect() as connection:
            return ledger.contracts(connection)

    def last_contract(self, asset: str) -> Contract | None:
        from ml_assets.stores.sqlite import ledger

        with self._file.connect() as connection:
            return ledger.last_contract(connection, asset)

    def ledger_state(self, contract: Contract, any_version: bool = False) -> "TableState":
        from ml_assets.stores.sqlite import ledger
        from ml_assets.tables.staging import table_state

        with self._file.connect() as connection:
            return table_state(ledger.buckets(connection, contract, any_version))

    def live_state(self, contract: Contract) -> "TableState":
        from ml_assets.stores.sqlite.ddl import columns_of
        from ml_assets.stores.sqlite.write import SQLiteTransaction
        from ml_assets.tables.staging import table_state

        with self._file.connect() as connection:
            if not columns_of(connection, contract.table):
                return table_state({})
            return table_state(SQLiteTransaction(connection, contract).measure([WHOLE]))

    def health(self) -> StoreHealth:
        return self._file.health()

    def size(self) -> int:
        from ml_assets.stores.sqlite.maintenance import size

        return size(self._file.path)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.sqlite.maintenance import maintain

        if self._file.path.exists():
            with self._file.statements() as connection:
                yield from maintain(connection)
