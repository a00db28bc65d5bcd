"""The hash of a set of rows: equal content gives an equal hash, in any order and in every store.

Each cell is hashed together with its column's name, the cells of a row are combined, and the rows' hashes
are added modulo 2^64. So hashes of partitions add up to the hash of the table, rows may come in any order
and in any batches, and a null counts for nothing: a new nullable column changes no hash.

The mixing is done by DuckDB's `hash()` on Arrow data, at several million rows a second, whatever store the
rows come from. It treats -0.0 as 0.0 and all NaNs as one. DuckDB may change it between releases: the unit
test holds known values, and whoever has to change them changes `HASH_VERSION` too, so that hashes recorded
before are seen as unknown and not as wrong.
"""

from collections.abc import Iterable, Sequence

from ml_assets.contracts import Column
from ml_assets.lib.sql import quote_identifier, quote_literal

HASH_VERSION = "1"


def row_hash_sql(columns: Iterable[Column]) -> str:
    """DuckDB expression for the hash of one row, a UBIGINT."""
    combined = "0::UBIGINT"
    for column in columns:
        name = quote_identifier(column.name)
        cell = f"hash({name}, {quote_literal(column.name)})"
        combined = f"xor({combined}, CASE WHEN {name} IS NULL THEN 0::UBIGINT ELSE {cell} END)"
    return f"hash({combined})"


def key_hash_sql(expressions: Sequence[str]) -> str:
    """DuckDB expression for the hash of some expressions, a UBIGINT."""
    return f"hash({', '.join(expressions)})"


def hash_text(total: int) -> str:
    """A sum of row hashes as 16 hexadecimal digits."""
    return f"{total % 2**64:016x}"


def add_hashes(hashes: Iterable[str]) -> str:
    """The hash of several disjoint sets of rows together."""
    return hash_text(sum(int(one, 16) for one in hashes))
