"""What PostgreSQL refuses because it is too long or too much."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.tables.staging import Staged
from ml_assets.tables.validation import shown_value


@contextmanager
def within_limits(contract: Contract, staged: Staged) -> Iterator[None]:
    """What PostgreSQL refuses because it is too long or too much, as a sentence.

    It is asked, not foreseen: an index takes 2,704 bytes, and more of text that can be packed.

    Raises:
        ContractViolation: a key, or a column with an index, is too long, the table has too many columns, or another
            limit was met.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as fault:
        if not (fault.sqlstate or "").startswith("54"):  # the class of program limits
            raise
        why, shown = str(fault).splitlines()[0], ""
        if "row is too big" in why or ("columns" in why and "index" not in why):
            raise ContractViolation(
                f"{contract.asset}: its {len(contract.columns):,} columns are too many for PostgreSQL, where a row must "
                f"fit in a page but for long texts ({why}): keep several of them as one JSON document, or make rows of "
                "them. Nothing was written."
            ) from fault
        if "index row" in why:
            columns, size, values = _longest_indexed(contract, staged)
            holds, many = ", ".join(map(shown_value, values)), "s" if len(columns) > 1 else ""
            shown = f"column{many} {', '.join(map(repr, columns))} with {size:,} bytes ({holds}) "
        raise ContractViolation(
            f"{contract.asset}: {shown or 'the table '}is beyond what PostgreSQL can hold ({why}): shorten what is too "
            "long, or keep a hash of it in its place. Nothing was written."
        ) from fault


def _longest_indexed(contract: Contract, staged: Staged) -> tuple[Sequence[str], int, list[Any]]:
    """The longest key, or value of a column that has an index: columns, bytes, values."""
    import numpy as np

    found: tuple[Sequence[str], int, list[Any]] = (contract.key, 0, [])
    for batch in staged.batches():
        for columns in (contract.key, *contract.indexed):
            sizes = np.zeros(batch.num_rows, np.int64)
            for name in columns:
                if pa.types.is_string(batch.column(name).type):
                    lengths = pc.call_function("binary_length", [batch.column(name)])
                    sizes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
            longest = int(sizes.argmax())
            if sizes[longest] > found[1]:
                values = [batch.column(name)[longest].as_py() for name in columns]
                found = columns, int(sizes[longest]), values
    return found
