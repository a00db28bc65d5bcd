"""The seam between what is the same for every store and what is not: `TableStore`, one implementation a store.

IO managers write and read through it; status, recovery, maintenance, checks and reconciliation loop over the
registry of stores (stores/registry.py) and know nothing of any of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ml_assets.contracts import Contract
from ml_assets.tables.contract_sql import CheckSQL
from ml_assets.tables.validation import Limits, Window

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Buckets, Staged, TableState

GRACE = timedelta(days=1)
"""Age below which a file that no table needs may still be written or read by somebody.

Writes end within their time-out of minutes; a reader that takes its time over a stream may need longer.
"""

_ONE_TRANSACTION = (
    "A write is one transaction, so there is nothing to finish: what was not committed never was."
)


@dataclass(frozen=True)
class Written:
    """What a write did.

    Args:
        changed: whether anything had to be changed.
        held: what the partitions hold now; of an upsert with the rows that others have written beside it.
        told: what else the run's metadata tell of it.
    """

    changed: bool
    held: "Buckets"
    told: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Recovery:
    """What recovery found in one store.

    Args:
        store: its name.
        state: `clean`, `recovered` if something was finished or undone, `failed` if something could not be
            and was set aside, `down` if that could not be seen.
        detail: one sentence.
        dealt_with: names of what was finished or undone.
    """

    store: str
    state: Literal["clean", "recovered", "failed", "down"]
    detail: str
    dealt_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retention:
    """How long what is not needed any more is kept.

    Args:
        versions: how far back the lake's versions can be read.
        grace: how long files and staging tables stay that may still be in use.
        kept_days: by asset, the days for which rows are kept that are not kept for ever.
    """

    versions: timedelta
    grace: timedelta = GRACE
    kept_days: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreHealth:
    """How a store does just now.

    Args:
        state: `healthy`; `busy` if another process holds it; `down` if it does not answer.
        version: of the engine or server, "" if unknown.
        detail: one sentence for a person, "" if there is nothing to say.
        latency_ms: connecting and asking one trivial question.
        extensions: of PostgreSQL, with their versions.
        unwritten: nothing was ever written to it, and opening it would make it.
    """

    state: Literal["healthy", "busy", "down"]
    version: str = ""
    detail: str = ""
    latency_ms: float = 0.0
    extensions: tuple[str, ...] = ()
    unwritten: bool = False


class Maintained(ABC):
    """Something that grows and is kept small: a store, or a part of one that is told of by itself."""

    name: ClassVar[str]
    """Name under which status, recovery and the report of maintenance tell of it."""

    @abstractmethod
    def size(self) -> int | None:
        """Bytes that it takes on disk (Redis: in memory); None where that cannot be asked."""

    @abstractmethod
    def maintain(self, retention: Retention) -> Iterator[str]:
        """Keep it small; yields a sentence for each thing that was done.

        It may run at any time, in any number of processes: each step takes the locks that writers take, and may be
        killed and done again.
        """


class TableStore(Maintained):
    """One store: how its tables are written, read, looked after and mended.

    An instance holds the resources that open the store's connections, and opens them for each call.
    """

    prefix: ClassVar[str]
    """First part of the keys of the assets that it holds."""

    kind: ClassVar[str]
    """Dagster's name for the kind of storage."""

    resources: ClassVar[tuple[str, ...]]
    """Keys of the resources that it is made of, in the order of its arguments."""

    also_holds: ClassVar[tuple[str, ...]] = ()
    """First parts of the keys of other stores' assets whose tables lie here."""

    books: ClassVar[str | None] = None
    """Name of the store that keeps its ledger, from which its tables can be brought back; None if it does itself."""

    asks: ClassVar[str | None] = None
    """Key of the resource that answers SQL about its tables (`asking`); None if none does."""

    checks: ClassVar[CheckSQL] = CheckSQL()
    """How that resource says what the checks ask."""

    pool: ClassVar[str | None] = None
    """Pool of the steps that open it, where it cannot be opened twice at once."""

    at_home: ClassVar[bool] = False
    """Whether it lies in the home whatever is set, so that only steps of that machine can open it."""

    limits: ClassVar[Limits]
    """What the store can hold."""

    @classmethod
    def is_used(cls, resources: Mapping[str, Any]) -> bool:
        """Whether there is such a store here: most always are, in the home if nowhere else.

        Args:
            resources: by key.
        """
        return True

    @staticmethod
    def table_name(contract: Contract) -> str:
        """The name that a query in this store would use for a table."""
        return contract.table

    @abstractmethod
    def write(self, contract: Contract, staged: "Staged") -> Written:
        """Put staged rows in place in one commit.

        Raises:
            ContractViolation: the table is not the contract's and cannot be made so.
            WriteBusy: somebody else kept writing to the table for too long.
        """

    @abstractmethod
    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        """The rows of a window as a stream that owns its connection. Columns in the order asked for.

        Raises:
            LookupError: the table was never written; here, or when the first batch is asked for.
        """

    def found(self, place: "Place") -> "Found | None":
        """A table that another tool made; None if there is none.

        Raises:
            ContractViolation: it cannot be read.
        """
        return None

    @abstractmethod
    def contracts(self) -> list[Contract]:
        """Of each table that was written and is there, the contract that it was last written by."""

    @abstractmethod
    def last_contract(self, asset: str) -> Contract | None:
        """The contract by which a table was last written; None if it never was."""

    @abstractmethod
    def ledger_state(self, contract: Contract, any_version: bool = False) -> "TableState":
        """Rows and content hash as the ledger noted them when the table was written.

        Args:
            any_version: also of what was hashed in another way by a former version of this project.
        """

    @abstractmethod
    def live_state(self, contract: Contract) -> "TableState | None":
        """Rows and content hash of what the store holds now; None if it holds no copy just now."""

    def keys(self, contract: Contract) -> "set[str] | None":
        """The keys that it answers with, where that cannot be asked in SQL; None if it can, or if it has no copy."""
        return None

    def held(self, contract: Contract, columns: Sequence[str], window: Window) -> "Iterable[pa.RecordBatch]":
        """The rows of a window as they are now, to be compared: as `read`, but of damaged ones those that are left."""
        return self.read(contract, columns, window)

    def copied(self, contract: Contract) -> "Iterator[pa.RecordBatch] | None":
        """The rows of the copy beside the table that lookups are answered from; None if there is none just now.

        Raises:
            ValueError, KeyError, TypeError: somebody has put into it what is no row.
        """
        return None

    def damage(self, contract: Contract) -> str:
        """In what a table does not agree with itself; "" if it does."""
        return ""

    def recover(self, tables: Mapping[str, Contract]) -> Recovery:
        """Finish or undo what killed writers have left.

        Args:
            tables: this project's contracts by asset, for what can be brought back from another table.
        """
        health = self.health()
        if health.state == "healthy":  # opening it, which asking for its health does, is all that it needs
            return Recovery(self.name, "clean", _ONE_TRANSACTION)
        return Recovery(self.name, "down", health.detail)

    @abstractmethod
    def health(self) -> StoreHealth:
        """How the store does just now. Never raises."""

    def opened(self) -> AbstractContextManager[Any]:
        """A block within which questions share what is costly to open, and keep others from it if it is one's alone."""
        return nullcontext()

    def maintained(self) -> "Sequence[Maintained]":
        """What maintenance looks after, in this order."""
        return [self]
