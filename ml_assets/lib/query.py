"""A SELECT to be run by whoever writes its result.

What belongs here: the value that an asset hands to the lake's IO manager in place of rows, so that the rows
never leave the engine's side of the process. What does not: running it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Query:
    """A DuckDB SELECT whose rows are the asset.

    Args:
        sql: one SELECT; tables of the lake are named `schema.table`, parameters `$name`.
        parameters: values of the `$name`s, bound by the engine.
        tables: Arrow data that the SELECT may read under these names.
        committed: called once the rows are in place, for what may be noted only then.
        contract: the table's `Contract`, where nobody else has one.
    """

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tables: "Mapping[str, pa.Table | pa.RecordBatchReader]" = field(default_factory=dict)
    committed: Callable[[], None] | None = None
    contract: Any = None
