"""Tables of ClickHouse that another tool made: what their columns are to a contract."""

import re
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from ml_assets.contracts import ColumnType, Contract
from ml_assets.lib.sql import qualified, quote_identifier
from ml_assets.stores.clickhouse.catalog import columns_of
from ml_assets.stores.clickhouse.rows import time_literal
from ml_assets.stores.clickhouse.stream import arrow_stream
from ml_assets.tables.found import Found, Place, found_table
from ml_assets.tables.staging import windows_sql
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    from ml_assets.stores.clickhouse import ClickHouse

_KINDS: tuple[tuple[str, ColumnType, str], ...] = (
    (r"U?Int(8|16|32|64)", "int64", "{}"),
    (r"Float(32|64)|Decimal\(.*\)", "float64", "{}"),
    (r"String|FixedString\(.*\)|UUID|Enum(8|16)\(.*\)", "string", "toString({})"),
    (r"Bool", "bool", "{}"),
    (r"Date|Date32", "date", "toDate32({})"),
    (r"DateTime(\(.*\))?", "timestamp", "toDateTime64({}, 6, 'UTC')"),
    (r"DateTime64\(.*\)", "timestamp", "toTimeZone({}, 'UTC')"),
    (r"Array\(Float(32|64)\)", "vector", "{}"),
    (r"(JSON|Map|Tuple)(\(.*\))?", "json", "toJSONString({})"),
)
"""ClickHouse's type, the logical one, and the value in SQL."""


def found(server: "ClickHouse", place: Place) -> Found | None:
    """A table as a contract has it; None if there is none.

    Raises:
        ContractViolation: it cannot be read.
    """
    with server.client() as client:
        types = columns_of(client, place.table, place.schema)
    kinds = {name: _kind(said) for name, said in types.items()}
    source = qualified(*filter(None, [place.schema, place.table]))

    def read(contract: Contract, columns: Sequence[str], window: Window) -> Generator[pa.RecordBatch]:
        named = [(kinds[name][1], quote_identifier(name)) for name in columns]
        values = ", ".join(f"{value.format(name)} AS {name}" for value, name in named)
        where = windows_sql(contract, [window], time_literal(contract))
        statement = f"SELECT {values} FROM (SELECT * FROM {source} WHERE {where})"
        with server.client(write=True) as client, arrow_stream(client, statement) as batches:
            yield from batches

    told: dict[str, tuple[ColumnType | None, str]] = {
        name: (kind, types[name]) for name, (kind, _) in kinds.items()
    }
    return found_table(place, told, read) if kinds else None


def _kind(kind: str) -> tuple[ColumnType | None, str]:
    """Logical type of a column that another tool made, if there is one, and its value in SQL: `{}` is its name.

    Arrow has a form for few of them: an enumeration would come as a number, an address as another one.
    """
    plain = re.sub(r"^LowCardinality\((.*)\)$", r"\1", kind)
    plain = re.sub(r"^Nullable\((.*)\)$", r"\1", plain)
    for pattern, logical, value in _KINDS:
        if re.fullmatch(pattern, plain):
            return logical, value
    return None, "{}"
