"""DuckDB's types of the logical ones. The one map, for the lake's tables and for whatever reads files by DuckDB."""

from ml_assets.contracts import ColumnType

DUCKDB_TYPES: dict[ColumnType, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "json": "JSON",
    "vector": "FLOAT[]",
}
"""As `duckdb_columns()` spells them."""

UNPARSED_TYPES: dict[ColumnType, str] = {**DUCKDB_TYPES, "json": "VARCHAR"}
"""Of columns whose JSON is kept as the text that arrived."""
