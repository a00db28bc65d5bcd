"""Contracts as text, so that a store can remember by which contract a table was made.

What belongs here: writing and reading that text, and telling which changes of a contract a table survives.
What does not: comparing columns with the real table; each store looks at its own.
"""

import dataclasses
import json

from ml_assets.contracts import Column, Contract, ForeignKey
from ml_assets.lib.arrow_types import ContractViolation


def contract_text(contract: Contract) -> str:
    """The contract as JSON, the same text for the same contract."""
    return json.dumps(dataclasses.asdict(contract), sort_keys=True)


def contract_of_text(text: str) -> Contract:
    """The contract that `contract_text` wrote."""
    fields = json.loads(text)
    fields["columns"] = tuple(Column(**{**c, "choices": tuple(c["choices"])}) for c in fields["columns"])
    fields["foreign_keys"] = tuple(ForeignKey(**key) for key in fields["foreign_keys"])
    fields["scope"] = tuple((name, value) for name, value in fields["scope"])
    return Contract(**{**fields, "key": tuple(fields["key"]), "order_by": tuple(fields["order_by"])})


def refuse_new_identity(old: Contract, new: Contract, drop: str) -> None:
    """Refuse a change of what identifies or places a row; the rows that are there were placed otherwise.

    Args:
        drop: the statement that makes way for a new table.

    Raises:
        ContractViolation: key or partition column differ.
    """
    for name in ("key", "partition_column", "unique_across_days"):
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            raise ContractViolation(
                f"{new.asset}: {name} was {was!r} when the table was made and is {now!r} in the contract; run "
                f"{drop} and materialize all partitions again, or undo the change. Nothing was written."
            )
