"""Vectors of several models in one table are refused: they cannot be compared, and a search over them finds anything."""

from collections.abc import Iterator

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation

MODEL = "model_name"
"""The column of a table of vectors that says which model made them."""


def of_one_model(batches: Iterator[pa.RecordBatch], contract: Contract) -> Iterator[pa.RecordBatch]:
    """Rows as they are, if all their vectors are of one model; those of a table that names none are not looked at.

    Raises:
        ContractViolation: two models are named; says which.
    """
    if MODEL not in contract.by_name or not any(column.type == "vector" for column in contract.columns):
        yield from batches
        return
    first = None
    for batch in batches:
        for model in batch[MODEL].unique().to_pylist():
            first = first or model
            if model != first:
                raise ContractViolation(
                    f"{contract.asset}: there are vectors of {first!r} and of {model!r} in one table, and those of "
                    "different models cannot be compared: give it those of one ('ml-assets embeddings repair' embeds "
                    "anew what another one than that of the settings made). Nothing was written."
                )
        yield batch
