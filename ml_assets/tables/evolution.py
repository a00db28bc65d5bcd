"""What becomes of a table whose contract has changed: one set of rules and sentences for every store.

A nullable column that the contract has gained is added. Everything else is refused with the statement that mends
it, before anything is written. A store says how it speaks and what the statements are, in a `Dialect`.
"""

from collections.abc import Mapping
from typing import Protocol

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation


class Dialect(Protocol):
    """How one store speaks of the columns of its tables."""

    def required(self, contract: Contract, column: Column) -> bool:
        """Whether the store keeps nulls out of the column."""
        ...

    def difference(self, contract: Contract, column: Column, kind: str, required: bool) -> str | None:
        """In what a column that is there differs from the contract's, and what to run; None if in nothing.

        Args:
            kind: the store's type of it.
            required: whether it may not be null.
        """
        ...

    def adding(self, contract: Contract, column: Column) -> str:
        """What to run to add a column that may not be null, and what else can be done."""
        ...

    def dropping(self, contract: Contract, name: str) -> str:
        """What to run to drop a column that the contract does not have."""
        ...


def type_differs(kind: str, wanted: str, where: str, remedy: str) -> str:
    """The difference of a type.

    Args:
        where: such as `in the file`.
        remedy: what to run.
    """
    return f"is {kind} {where} and {wanted} in the contract; run {remedy}"


def columns_to_add(
    contract: Contract,
    existing: Mapping[str, tuple[str, bool]],
    dialect: Dialect,
    replaces: bool | None = None,
) -> list[Column]:
    """The columns that the contract has gained.

    Args:
        existing: type and whether it may not be null, of each column that the table has.
        replaces: whether rows are deleted and inserted anew; if None, as the mode `overwrite` alone does.

    Raises:
        ContractViolation: the table differs in another way; says which statement would mend it.
    """
    added = []
    for column in contract.columns:
        if column.name in existing:
            if difference := dialect.difference(contract, column, *existing[column.name]):
                raise ContractViolation(
                    f"{contract.asset}: column {column.name!r} {difference}, or undo the change. Nothing was written."
                )
        elif dialect.required(contract, column):
            raise ContractViolation(f"{valueless(contract, column, dialect)} Nothing was written.")
        else:
            added.append(column)
    # Columns of somebody else's are left alone by a merge, but a row that is inserted anew would lose them.
    replaces = contract.mode == "overwrite" if replaces is None else replaces
    for name in existing.keys() - set(contract.names) if replaces else ():
        raise ContractViolation(
            f"{contract.asset}: the table has a column {name!r} that the contract does not have; run "
            f"{dialect.dropping(contract, name)}, or add it to the contract. Nothing was written."
        )
    return added


def valueless(contract: Contract, column: Column, dialect: Dialect) -> str:
    """The sentence about a new column that may not be null."""
    return (
        f"{contract.asset}: the contract has a new column {column.name!r} that may not be null, and the table's rows "
        f"have no value for it; run {dialect.adding(contract, column)}."
    )
