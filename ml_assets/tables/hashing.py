"""The hash of a set of rows: equal content gives an equal hash, in any order and in every store.

Each cell is hashed together with its column's name and then once more, the cells of a row are combined, and the
rows' hashes are added modulo 2^64. So hashes of partitions add up to the hash of the table, rows may come in any order
and in any batches, and a null counts for nothing: a new nullable column changes no hash.

The second time is what keeps columns apart: of several values, `hash()` gives a sum of a part of the name's and a
part of the value's, and a value that stands in two columns would add up to nothing, as would two that change places.

The mixing is done by DuckDB's `hash()` on Arrow data, at several million rows a second, whatever store the
rows come from. It treats -0.0 as 0.0 and all NaNs as one. DuckDB may change it between releases: the unit
test holds known values, and whoever has to change them changes `HASH_VERSION` too, so that hashes recorded
before are seen as unknown and not as wrong.
"""

from collections.abc import Iterable, Sequence

from ml_assets.contracts import Column
from ml_assets.lib.sql import quote_identifier, quote_literal

HASH_VERSION = "2"


def row_hash_sql(columns: Iterable[Column]) -> str:
    """DuckDB expression for the hash of one row, a UBIGINT."""
    return f"hash({_combined([_cell_sql(column) for column in columns])})"


def _cell_sql(column: Column) -> str:
    name = quote_identifier(column.name)
    cell = f"hash(hash({quote_literal(column.name)}, {name}))"
    return f"CASE WHEN {name} IS NULL THEN 0::UBIGINT ELSE {cell} END"


def _combined(cells: Sequence[str]) -> str:
    """The cells' hashes in one, by halves: one within the other, a thousand would be too deep for DuckDB."""
    if len(cells) == 1:
        return cells[0]
    half = len(cells) // 2
    return f"xor({_combined(cells[:half])}, {_combined(cells[half:])})"


def key_hash_sql(expressions: Sequence[str]) -> str:
    """DuckDB expression for the hash of some expressions, a UBIGINT."""
    return f"hash({', '.join(expressions)})"


def hash_text(total: int) -> str:
    """A sum of row hashes as 16 hexadecimal digits."""
    return f"{total % 2**64:016x}"


def add_hashes(hashes: Iterable[str]) -> str:
    """The hash of several disjoint sets of rows together."""
    return hash_text(sum(int(one, 16) for one in hashes))
