"""One write, as every store does it whose transaction is its staging area.

Look at the table and fit it to its contract; compare the ledger with the staged rows; replace or merge the
partitions that differ; note what they hold now. What a store adds are the statements, in a `TableTransaction`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ml_assets.contracts import Contract
from ml_assets.tables.staging import Buckets, Staged, partitions_to_write, spans_of
from ml_assets.tables.store import Written
from ml_assets.tables.validation import Window


class TableTransaction(ABC):
    """An open transaction of one store on one table. Nothing of it is seen before the store's commit.

    Args:
        contract: of the table.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    @property
    def replaces(self) -> bool:
        """Whether a slice is deleted and inserted anew. Merged instead, rows whose key stays keep their identity."""
        return self.contract.mode == "overwrite" and not self.contract.unique_across_days

    @abstractmethod
    def ensure(self) -> None:
        """Create the table, or add what the contract has gained; remember the contract.

        Raises:
            ContractViolation: the table differs in another way, or cannot have its name; says what to do.
        """

    @abstractmethod
    def ledger(self) -> Buckets:
        """What the ledger says that the partitions hold."""

    @abstractmethod
    def measure(self, windows: Sequence[Window]) -> Buckets:
        """What the partitions in some windows hold, read and hashed."""

    @abstractmethod
    def replace(self, staged: Staged, buckets: set[int]) -> None:
        """Put the staged rows of some partitions in the place of those that are there."""

    @abstractmethod
    def merge(self, staged: Staged, buckets: set[int], delete: bool) -> tuple[bool, set[int]]:
        """Insert or update the staged rows of some partitions by their keys.

        Args:
            delete: whether rows of the partitions whose key is not staged are deleted.

        Returns:
            whether any row was changed, and the partitions that rows were taken from.
        """

    @abstractmethod
    def record(self, held: Buckets, buckets: set[int] | None) -> None:
        """Note in the ledger what some partitions (None: all) hold now; those that hold nothing are forgotten."""

    def as_noted(self, buckets: set[int]) -> bool:
        """Whether some partitions hold as many rows as the ledger says, where others may add rows, too."""
        return True

    def keep_references(self, changed: bool) -> None:
        """See that every foreign key points somewhere, once the rows are in place.

        Args:
            changed: whether any row was.

        Raises:
            ContractViolation: one points nowhere.
        """
        return  # most stores know of none


def write(table: TableTransaction, staged: Staged) -> Written:
    """Put staged rows in place, as the contract's mode says, within the open transaction.

    Raises:
        ContractViolation: the table is not the contract's and cannot be made so, or a row cannot stand where it is
            to stand, or points nowhere.
    """
    contract = table.contract
    table.ensure()
    if contract.mode == "upsert":
        return _upsert(table, staged)
    changed = partitions_to_write(staged, table.ledger(), lambda window: table.measure([window]))
    losing_rows: set[int] = set()
    if changed and table.replaces:
        table.replace(staged, changed)
    elif changed:
        _, losing_rows = table.merge(staged, changed, delete=True)
    table.keep_references(bool(changed))
    if changed:
        table.record(staged.buckets, None if staged.window.whole else changed)
        _measure_again(table, losing_rows - changed)
    return Written(bool(changed), staged.buckets)


def _upsert(table: TableTransaction, staged: Staged) -> Written:
    given = set(staged.buckets)
    changed, losing_rows = table.merge(staged, given, delete=False)
    table.keep_references(changed)
    if changed or not table.as_noted(given | losing_rows):
        _measure_again(table, given | losing_rows)
    return Written(changed, table.ledger())


def _measure_again(table: TableTransaction, buckets: set[int]) -> None:
    """Note partitions whose content is not what was staged: upserted ones, and those that lost rows."""
    if buckets:
        table.record(table.measure(spans_of(buckets, table.contract)), buckets)
