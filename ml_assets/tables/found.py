"""Tables that another tool made, dbt say, and that an asset reads: a contract of what the store has, and the place.

What belongs here: what is the same for all stores. Each store tells its columns and gives their values.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pyarrow as pa

from ml_assets.contracts import Column, ColumnType, Contract
from ml_assets.errors import ContractViolation
from ml_assets.tables.arrow_types import UNFIT, arrow_schema, conform
from ml_assets.tables.inference import logical_type
from ml_assets.tables.validation import Window


@dataclass(frozen=True)
class Place:
    """Where such a table is looked for.

    Args:
        asset: `store/table`, for sentences.
        schema: schema or database; "" for the one that the store's own tables lie in.
        table: its name there.
        key, partition_column: as the asset's metadata names them.
    """

    asset: str
    schema: str
    table: str
    key: tuple[str, ...] = ()
    partition_column: str | None = None


Read = Callable[[Contract, Sequence[str], Window], Generator[pa.RecordBatch]]


@dataclass(frozen=True)
class Found:
    """Such a table.

    Args:
        contract: of those of its columns that can be read.
        unread: type, as the store calls it, of each column that has no place in a contract.
        read: batches of its rows, as Arrow has the store's own types: some columns, of a window.
    """

    contract: Contract
    unread: Mapping[str, str]
    read: Read

    def rows(self, columns: Sequence[str], window: Window) -> pa.RecordBatchReader:
        """The rows in the contract's types.

        Raises:
            ContractViolation: here or later: a value does not fit.
        """
        chosen = tuple(self.contract.by_name[name] for name in columns)
        wanted = Contract(self.contract.asset, "", chosen, ())

        def batches() -> Iterator[pa.RecordBatch]:
            row = 0
            # Closed at once: a fault keeps the frames that it went through, and with them the store's connection.
            with _explained(self.contract.asset), closing(self.read(self.contract, columns, window)) as given:
                for batch in given:
                    yield from conform(batch, wanted, row)
                    row += batch.num_rows

        return pa.RecordBatchReader.from_batches(arrow_schema(wanted), batches())

    def refuse_unread(self, columns: Sequence[str]) -> None:
        """Refuse to leave out columns that are asked for, which all are if none is named.

        Raises:
            ContractViolation: there is such a column.
        """
        for name, kind in self.unread.items():
            if name in columns or not columns:
                raise ContractViolation(
                    f"{self.contract.asset}: column {name!r} is {kind}, which no contract has a type for (a time needs "
                    "its zone): convert it in the tool that makes the table, or name the columns to read in the metadata "
                    "'columns' of the input."
                )


@contextmanager
def _explained(asset: str) -> Iterator[None]:
    """What cannot be read, in sentences that say nothing of writing."""
    try:
        yield
    except ContractViolation as fault:
        raise ContractViolation(str(fault).removesuffix(" Nothing was written.")) from fault
    except UNFIT as fault:
        raise ContractViolation(
            f"{asset}: its rows have no form in the contract's types ({str(fault).splitlines()[0]}): convert them in the "
            "tool that makes the table, or name the columns to read in the metadata 'columns' of the input."
        ) from fault


def found_table(
    place: Place,
    kinds: Mapping[str, tuple[ColumnType | None, str]],
    read: Read,
) -> Found:
    """A table of these columns.

    Args:
        kinds: logical type, if there is one, and the store's own name of it.

    Raises:
        ContractViolation: it cannot be read by a contract, or the metadata names columns that it does not have.
    """
    columns = tuple(Column(name, kind) for name, (kind, _) in kinds.items() if kind is not None)
    unread = {name: said for name, (kind, said) in kinds.items() if kind is None}
    contract = Contract(place.asset, "", (), ())
    if place.partition_column in unread:
        Found(contract, unread, read).refuse_unread([place.partition_column or ""])
    try:
        contract = Contract(
            place.asset,
            "",
            columns,
            tuple(name for name in place.key if name not in unread),
            place.partition_column,
        )
    except ValueError as fault:
        raise ContractViolation(f"{fault}; correct the asset's metadata, or the table.") from fault
    return Found(contract, unread, read)


def kinds_of(asset: str, schema: pa.Schema) -> dict[str, tuple[ColumnType | None, str]]:
    """Logical types of the columns of Arrow data."""
    return {field.name: (_kind(asset, field), str(field.type)) for field in schema}


def _kind(asset: str, field: pa.Field) -> ColumnType | None:
    if pa.types.is_timestamp(field.type) and field.type.tz is None:
        return None
    try:
        return logical_type(asset, field)
    except ContractViolation:
        return None
