"""Online features: PostgreSQL holds the truth, Redis a copy of one version of it.

A table is written to PostgreSQL in one transaction. Before its commit the rows also go to Redis as one hash
per version, and a pointer names the version that counts. Around the commit the pointer is taken away, so
whoever asks in that moment reads PostgreSQL; it comes back under the table's lock, naming the version that
PostgreSQL has. So a reader sees old or new, and a crash of the writer leaves no stale pointer. A server that was
restarted may have lost the last second, or hours, and with it that a pointer was taken away: a pointer counts only
in the run of the server in which it was set. After a restart PostgreSQL answers until the next materialization,
`ml-assets recover` or maintenance has compared versions. Without Redis all this is PostgreSQL.

Feature views, tables with an event time, share one hash an entity and are written row by row: entities.py.

What belongs here: the copies, and the ways to read a row: `lookup.lookup` from a table, `online.OnlineReader` from any
number of views. What does not: features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar, Protocol

from ml_assets.contracts import Contract
from ml_assets.tables.store import Recovery, Retention, StoreHealth, TableStore, Written
from ml_assets.tables.validation import Limits, Window

if TYPE_CHECKING:
    import pyarrow as pa
    from redis import ConnectionPool, Redis
    from redis.connection import AbstractConnection

    from ml_assets.stores.postgres_table.server import PostgresServer
    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Staged, TableState

__all__ = ["RedisServer", "RedisStore"]


class RedisServer(Protocol):
    """What the store needs of the resource that opens clients (resources/redis.py)."""

    def client(self) -> "Redis | None":
        """A client that has answered; None where no Redis is to be had."""
        ...

    def pool(
        self, greet: "Callable[[AbstractConnection], None]", timeout_s: float
    ) -> "ConnectionPool | None":
        """Connections that are greeted when they are opened; None where no Redis is to be had."""
        ...

    def health(self) -> StoreHealth:
        """How the server does."""
        ...


class RedisStore(TableStore):
    """The tables that rows are looked up in by their key.

    Args:
        redis: opens clients to the server that holds the copies (resources/redis.py).
        postgres: opens connections to the server that holds the truth (resources/postgres.py).
    """

    name: ClassVar[str] = "redis"
    prefix: ClassVar[str] = "serving"
    kind: ClassVar[str] = "postgres"
    resources: ClassVar[tuple[str, ...]] = ("redis", "postgres")
    books: ClassVar[str | None] = "postgres"
    asks: ClassVar[str | None] = "postgres"
    limits: ClassVar[Limits] = Limits("PostgreSQL", nul=False, columns=1_600, row_bytes=500_000_000)

    def __init__(self, redis: RedisServer, postgres: "PostgresServer") -> None:
        self._redis = redis
        self._postgres = postgres

    @staticmethod
    def table_name(contract: Contract) -> str:
        return f"{contract.schema}.{contract.table}"

    def write(self, contract: Contract, staged: "Staged") -> Written:
        from ml_assets.stores import postgres_table
        from ml_assets.stores.redis.copies import fill, refresh
        from ml_assets.stores.redis.pointer import pointer_of
        from ml_assets.tables.conflicts import retried

        def attempt(cache: "Redis | None") -> Written:
            with self._postgres.connect(write=True) as connection:
                written = postgres_table.write(connection, contract, staged)
                if cache is not None and written.changed:
                    if not contract.event_time:
                        # Before the commit, so that a Redis that goes away or is full leaves the old rows in both.
                        fill(cache, connection, contract)
                    cache.delete(pointer_of(contract))
            return written

        with self._redis.client() or nullcontext() as cache:
            written = retried(contract.asset, postgres_table.is_conflict, lambda: attempt(cache))
            if cache is not None and contract.event_time:
                return self._with_changes(cache, contract, written, staged.rows)
            if cache is not None:
                refresh(cache, self._postgres, contract)
        return written

    def _with_changes(self, cache: "Redis", contract: Contract, written: Written, rows: int) -> Written:
        """Bring the copy of a view up to date, and tell how many rows that took."""
        from dataclasses import asdict, replace

        from ml_assets.stores.redis.entities import Changes, refresh

        changes = refresh(cache, self._postgres, contract) or Changes(unchanged=rows)
        return replace(written, told={f"entities_{name}": count for name, count in asdict(changes).items()})

    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        from ml_assets.stores.postgres_table.server import stream

        return stream(self._postgres, contract, columns, window)

    def found(self, place: "Place") -> "Found | None":
        from ml_assets.stores.postgres_table import found_in_postgres

        return found_in_postgres(self._postgres.connect, place)

    def contracts(self) -> list[Contract]:
        from ml_assets.stores.postgres_table.server import contracts

        return contracts(self._postgres, self.prefix)

    def last_contract(self, asset: str) -> Contract | None:
        from ml_assets.stores.postgres_table.server import last_contract

        return last_contract(self._postgres, asset)

    def ledger_state(self, contract: Contract, any_version: bool = False) -> "TableState":
        from ml_assets.stores.postgres_table.server import ledger_state

        return ledger_state(self._postgres, contract, any_version)

    def live_state(self, contract: Contract) -> "TableState | None":
        """Rows and content hash of the copy; None where PostgreSQL answers, which is measured there."""
        from ml_assets.stores.redis.copies import copy_state

        with self._redis.client() or nullcontext() as cache:
            return copy_state(cache, contract) if cache is not None else None

    def copied(self, contract: Contract) -> "Iterator[pa.RecordBatch] | None":
        """See `TableStore`."""
        from ml_assets.stores.redis.copies import copied_rows

        with self._redis.client() or nullcontext() as cache:
            return copied_rows(cache, contract) if cache is not None else None

    def keys(self, contract: Contract) -> "set[str] | None":
        """Keys of the rows that Redis answers with; None where PostgreSQL answers."""
        from ml_assets.stores.redis.copies import held_keys

        return held_keys(self._redis, contract)

    def recover(self, tables: Mapping[str, Contract]) -> Recovery:
        """Make every copy anew that is not the one that PostgreSQL's rows have, or that somebody has changed."""
        from ml_assets.lib.faults import one_sentence
        from ml_assets.stores.redis.copies import mend

        try:
            mended = mend(self._redis, self._postgres)
        except Exception as fault:  # noqa: BLE001 - told; the other stores are looked at all the same
            return Recovery(self.name, "down", one_sentence(fault))
        if not mended:
            return Recovery(self.name, "clean", "Redis serves what PostgreSQL holds, or nothing.")
        told = "Finished or undone what killed writers left."
        return Recovery(self.name, "recovered", told, tuple(mended))

    def health(self) -> StoreHealth:
        return self._redis.health()

    def size(self) -> int | None:
        from ml_assets.stores.redis.maintenance import size

        return size(self._redis)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.redis.maintenance import maintain

        yield from maintain(self._redis, self._postgres)
