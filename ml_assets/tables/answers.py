"""What a person asked a store in SQL, and what it answered: the rows as Arrow, the faults as sentences."""

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ml_assets.errors import Refusal
from ml_assets.lib.faults import one_sentence


def answered(
    names: Sequence[str], rows: Sequence[Sequence[Any]], kinds: Sequence[pa.DataType | None]
) -> pa.Table:
    """Rows of Python's values as a table.

    Args:
        names: of the columns; two may have the same one.
        kinds: their types; None for what the values are, text if they are of several kinds.
    """
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = [_array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(names))


def _array(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    if kind is not None and not pa.types.is_string(kind):
        return pa.array(values, kind)
    if kind is None:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            pass  # no one type of Arrow's holds them all
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def not_answered(store: str, fault: BaseException) -> Refusal:
    """The refusal of a query that is wrong.

    Args:
        store: its name as people know it.
        fault: what its driver raised.
    """
    said = re.split(r" LINE \d+: ", one_sentence(fault))[
        0
    ]  # where, in a query that we may have put something before
    return Refusal(f"{store} cannot answer this: {said.rstrip('.')}.")


def only_read(store: str) -> Refusal:
    """The refusal of what is no query, or of one that would change something."""
    return Refusal(
        f"{store} is only read here: ask one query (SELECT). What would change a table is left to the graph, which "
        "writes it with its contract and its ledger."
    )


def nothing_written(store: str, where: object) -> Refusal:
    """The refusal to ask a store that the first write makes."""
    return Refusal(f"{store} holds nothing yet, there is no {where}: 'ml-assets refresh' makes it.")
