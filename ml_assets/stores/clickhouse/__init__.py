"""ClickHouse: one partition a commit, a lock and a redo log a table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from ml_assets.contracts import Contract
from ml_assets.tables.contract_sql import CheckSQL
from ml_assets.tables.store import Maintained, Recovery, Retention, StoreHealth, TableStore, Written
from ml_assets.tables.validation import WHOLE, Limits, Window

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Staged, TableState

__all__ = ["ClickHouse", "ClickHouseStore"]


class ClickHouse(Protocol):
    """What the store needs of the resource that opens a server or the embedded engine."""

    @property
    def embedded_path(self) -> Path | None:
        """Folder of the embedded engine, None for a server."""
        ...

    @property
    def write_timeout_s(self) -> float:
        """How long a write may take."""
        ...

    def client(self, write: bool = False) -> "AbstractContextManager[Client]":
        """A client on the project's database."""
        ...

    def finished_when_opened(self) -> list[str]:
        """Tables of killed writers that were dealt with when the embedded engine was opened."""
        ...

    def health(self) -> StoreHealth:
        """How the server or engine does."""
        ...


class ClickHouseStore(TableStore):
    """The tables of a ClickHouse, a server or embedded.

    Args:
        resource: opens clients (resources/clickhouse.py).
    """

    name: ClassVar[str] = "clickhouse"
    prefix: ClassVar[str] = "clickhouse"
    kind: ClassVar[str] = "clickhouse"
    resources: ClassVar[tuple[str, ...]] = ("clickhouse",)
    asks: ClassVar[str | None] = "clickhouse"
    checks: ClassVar[CheckSQL] = CheckSQL(
        # ClickHouse's Date ends in 2149 and begins in 1970: other days would become one of those.
        day="CAST({column} AS Date32)",
        key_hash="lower(hex(MD5({key})))",
        key_number="reinterpretAsUInt64(reverse(unhex(substring(key_hash, 3, 10))))",
    )
    pool: ClassVar[str | None] = "clickhouse"
    limits: ClassVar[Limits] = Limits("ClickHouse", null_vector=False, first_year=1900, last_year=2299)

    def __init__(self, resource: ClickHouse) -> None:
        self._clickhouse = resource

    @staticmethod
    def table_name(contract: Contract) -> str:
        return f"{contract.schema}.{contract.table}"

    def write(self, contract: Contract, staged: "Staged") -> Written:
        from ml_assets.stores.clickhouse import ledger
        from ml_assets.stores.clickhouse.lock import writing
        from ml_assets.stores.clickhouse.write import write

        with writing(self._clickhouse, contract.table) as client:
            changed = write(self._clickhouse, client, contract, staged)
            merged = contract.mode == "upsert"
            return Written(changed, ledger.buckets(client, contract) if merged else staged.buckets)

    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.stores.clickhouse.rows import read
        from ml_assets.tables.arrow_types import arrow_schema

        def batches() -> "Iterator[pa.RecordBatch]":
            with self._clickhouse.client(write=True) as client:
                yield from read(client, contract, columns, window)

        return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())

    def found(self, place: "Place") -> "Found | None":
        from ml_assets.stores.clickhouse.found import found

        return found(self._clickhouse, place)

    def contracts(self) -> list[Contract]:
        from ml_assets.stores.clickhouse import ledger

        with self._clickhouse.client() as client:
            return ledger.contracts(client)

    def last_contract(self, asset: str) -> Contract | None:
        from ml_assets.stores.clickhouse import ledger

        with self._clickhouse.client() as client:
            return ledger.last_contract(client, asset)

    def ledger_state(self, contract: Contract, any_version: bool = False) -> "TableState":
        from ml_assets.stores.clickhouse import ledger
        from ml_assets.tables.staging import table_state

        with self._clickhouse.client() as client:
            return table_state(ledger.buckets(client, contract, any_version))

    def live_state(self, contract: Contract) -> "TableState":
        from ml_assets.stores.clickhouse.rows import measured
        from ml_assets.tables.staging import table_state

        with self._clickhouse.client(write=True) as client:
            return table_state(measured(client, contract, WHOLE))

    def recover(self, tables: Mapping[str, Contract]) -> Recovery:
        """Finish what killed writers had committed; tell of what could not be finished and was set aside."""
        from ml_assets.stores.clickhouse.recovery import recover_all

        return recover_all(self._clickhouse)

    def health(self) -> StoreHealth:
        return self._clickhouse.health()

    def opened(self) -> "AbstractContextManager[Client]":
        return self._clickhouse.client()

    def size(self) -> int:
        from ml_assets.stores.clickhouse.maintenance import size

        with self._clickhouse.client() as client:
            return size(client)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.clickhouse.maintenance import maintain

        return maintain(self._clickhouse, retention.kept_days, self.limits)

    def maintained(self) -> Sequence[Maintained]:
        from ml_assets.stores.clickhouse.system_tables import SystemTables

        # The embedded engine keeps no logs of its own in tables.
        return (
            [self] if self._clickhouse.embedded_path is not None else [self, SystemTables(self._clickhouse)]
        )
