"""What one request to Chroma can carry, looked at before anything is written."""

import numpy as np
import pyarrow.compute as pc

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.stores.chroma.collections import LARGEST_ENTRY, entry_bytes
from ml_assets.stores.vectors.entries import encoded, keys_of, vectors
from ml_assets.tables.staging import Staged
from ml_assets.tables.validation import shown_value


def refuse_large(contract: Contract, staged: Staged) -> None:
    """Refuse rows that no request can carry, before anything is written.

    Raises:
        ContractViolation: there is one.
    """
    texts = [column.name for column in contract.columns if column.type in ("string", "json")]
    for batch in staged.batches():
        bound = np.zeros(batch.num_rows, dtype=np.int64)
        for name in texts:
            lengths = pc.call_function("binary_length", [batch.column(name)])
            bound += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
        # JSON has up to six bytes for one, and scalars of a document stand beside it; the rest of a row is small.
        for n in np.flatnonzero(12 * bound > LARGEST_ENTRY - 2**20).tolist():
            row = batch.slice(n, 1)
            (key,) = keys_of(row, contract)
            (size,) = entry_bytes([f"{key}{' ' * 28}"], vectors(row, contract), **encoded(row, contract))
            if size > LARGEST_ENTRY:
                longest = max(texts, key=lambda name: len(row.column(name)[0].as_py() or ""))
                raise ContractViolation(
                    f"{contract.asset}: the row of key {shown_value(key)} takes {size:,} bytes in a request and Chroma "
                    f"takes {LARGEST_ENTRY:,}: shorten its column {longest!r}, or cut it into several rows. Nothing was "
                    "written."
                )
