"""PostgreSQL: one transaction a write, COPY in both directions. The mechanics are in stores/postgres_table."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from ml_assets.contracts import Contract
from ml_assets.tables.store import Retention, StoreHealth, TableStore, Written
from ml_assets.tables.validation import Limits, Window

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.stores.postgres_table.server import PostgresServer
    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Staged, TableState

__all__ = ["PostgresStore"]


class PostgresStore(TableStore):
    """The tables of a PostgreSQL server, those that Redis has a copy of among them.

    Args:
        resource: opens connections to the server (resources/postgres.py).
    """

    name: ClassVar[str] = "postgres"
    prefix: ClassVar[str] = "postgres"
    kind: ClassVar[str] = "postgres"
    also_holds: ClassVar[tuple[str, ...]] = ("serving",)
    resources: ClassVar[tuple[str, ...]] = ("postgres",)
    asks: ClassVar[str | None] = "postgres"
    limits: ClassVar[Limits] = Limits("PostgreSQL", nul=False, columns=1_600, row_bytes=1_000_000_000)

    def __init__(self, resource: "PostgresServer") -> None:
        self._server = resource

    @staticmethod
    def table_name(contract: Contract) -> str:
        return f"{contract.schema}.{contract.table}"

    def write(self, contract: Contract, staged: "Staged") -> Written:
        from ml_assets.stores import postgres_table
        from ml_assets.tables.conflicts import retried

        def attempt() -> Written:
            with self._server.connect(write=True) as connection:
                return postgres_table.write(connection, contract, staged)

        return retried(contract.asset, postgres_table.is_conflict, attempt)

    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        from ml_assets.stores.postgres_table.server import stream

        return stream(self._server, contract, columns, window)

    def found(self, place: "Place") -> "Found | None":
        from ml_assets.stores.postgres_table import found_in_postgres

        return found_in_postgres(self._server.connect, place)

    def contracts(self) -> list[Contract]:
        from ml_assets.stores.postgres_table.server import contracts

        return contracts(self._server, "postgres", "serving")

    def last_contract(self, asset: str) -> Contract | None:
        from ml_assets.stores.postgres_table.server import last_contract

        return last_contract(self._server, asset)

    def ledger_state(self, contract: Contract, any_version: bool = False) -> "TableState":
        from ml_assets.stores.postgres_table.server import ledger_state

        return ledger_state(self._server, contract, any_version)

    def live_state(self, contract: Contract) -> "TableState":
        from ml_assets.stores.postgres_table.server import live_state

        return live_state(self._server, contract)

    def health(self) -> StoreHealth:
        return self._server.health()

    def size(self) -> int:
        from ml_assets.stores.postgres_table.maintenance import size

        with self._server.statements() as connection:
            return size(connection)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.postgres_table.maintenance import maintain

        with self._server.statements() as connection:
            yield from maintain(connection)
