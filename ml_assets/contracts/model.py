"""What a contract is: columns, types, keys, the partition column, ranges.

The DDL, `dagster/column_schema`, the validation inside a write and the asset checks are all derived from these
objects. How a type is stored in each store is in docs/types.md. What does not belong here: any table.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ml_assets.contracts.naming import misnamed, misnamed_in

ColumnType = Literal["string", "int64", "float64", "bool", "timestamp", "date", "json", "vector"]
"""Logical types. `timestamp` is UTC with microseconds, `json` is one JSON document as text in canonical
form (sorted keys, no white space), `vector` is a list of float32 of a fixed dimension."""


WriteMode = Literal["overwrite", "upsert_delete", "upsert"]
"""What a write does with the rows that are there. `overwrite` replaces the slice (the partitions of the
run, or the whole table), `upsert_delete` ends in the same rows but keeps the identity of those whose key
stays (what foreign keys point at survives), `upsert` never deletes."""


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: snake_case, with the unit in the name where there is one (`inference_time_ms`).
        type: logical type.
        nullable: False makes a null a contract violation.
        description: one line for the catalog.
        dimension: length of a `vector`.
        minimum, maximum: inclusive range of a number; NaN is outside every range.
        choices: the lawful values of a string.
        max_bytes: of a string in UTF-8, asked of rows that come in; None if it may be of any length.
    """

    name: str
    type: ColumnType
    nullable: bool = True
    description: str = ""
    dimension: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    max_bytes: int | None = None


@dataclass(frozen=True)
class ForeignKey:
    """`column` of this table holds a value of `parent_column` in `parent`, a table of the same store."""

    column: str
    parent: str
    parent_column: str


@dataclass(frozen=True)
class Contract:
    """What a table promises to whoever reads it.

    Args:
        asset: asset key as `store/table`.
        description: what one row is.
        columns: in storage order.
        key: columns that identify a row. Unique within a day; across days too if `unique_across_days`.
        partition_column: timestamp or date whose UTC day is the partition; None if unpartitioned.
        order_by: clustering order inside the store; the key if empty.
        mode: see `WriteMode`.
        scope: constant column values that mark the rows which this contract's writer owns. Rows with other
            values in these columns belong to somebody else and are never touched.
        foreign_keys: enforced in SQLite and PostgreSQL.
        unique_across_days: whether a key may stand on one day only.
        partition_us: length of a partition as it is stored, in microseconds; not longer than any of the asset's.
        indexes: what rows are looked up by, each a column or several in a tuple; a GIN index in PostgreSQL for a
            column of JSON. Stores without secondary indexes have none.
        asset_key: the whole key of an asset whose contract was inferred, of which `asset` is made.
        nullable_key: columns of the key that may be null, two nulls being equal. In the lake only, whose keys are
            no index.
        event_time: column from whose time a row holds, of a feature view: a table whose rows are looked up by their
            key (the entity), together with those of other views.
        ttl_s: seconds after the event time for which a row of a view may be used; None if for ever.
        kept_days: days after their own for which rows are kept; maintenance drops older ones. None if for ever.
        vectors_by: column that says which vectors can be compared, such as their model: PostgreSQL has an index of
            vectors for each of its values. One for all if it is empty.
        stored_by_month: whether the store keeps a month's rows in one piece, whatever is written at once. In ClickHouse
            only, where each piece costs a reader time: for tables of few rows a day that are read over many days.
    """

    asset: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_column: str | None = None
    order_by: tuple[str, ...] = ()
    mode: WriteMode = "overwrite"
    scope: tuple[tuple[str, str], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    unique_across_days: bool = False
    partition_us: int = 86_400_000_000
    indexes: tuple[str | tuple[str, ...], ...] = ()
    asset_key: str = ""
    nullable_key: tuple[str, ...] = ()
    event_time: str | None = None
    ttl_s: int | None = None
    kept_days: int | None = None
    vectors_by: str = ""
    stored_by_month: bool = False

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"contract {self.asset}: a column name stands twice in {names}")
        kinds = {column.name: column.type for column in self.columns}
        if faults := [*misnamed(self.table, names), *misnamed_in(self.store, self.table, kinds)]:
            raise ValueError(f"contract {self.asset}: {faults[0]}; rename it")
        named = [*self.key, *self.order_by, *(name for name, _ in self.scope)]
        named += [name for columns in self.indexed for name in columns]
        named += [name for name in (self.partition_column, self.event_time, self.vectors_by) if name]
        for name in named:
            if name not in names:
                raise ValueError(f"contract {self.asset}: no column {name!r} among {names}")
        if self.nullable_key and (self.store != "duckdb" or not set(self.nullable_key) <= set(self.key)):
            raise ValueError(
                f"contract {self.asset}: {', '.join(self.nullable_key)} may be null in a key of the lake only"
            )
        partition = next((column for column in self.columns if column.name == self.partition_column), None)
        if partition is not None and partition.type not in ("timestamp", "date"):
            raise ValueError(
                f"contract {self.asset}: the partition column {partition.name!r} is {partition.type}; a timestamp "
                "with a time zone or a date is needed"
            )

        if self.stored_by_month and (self.store != "clickhouse" or partition is None):
            raise ValueError(
                f"contract {self.asset}: stored_by_month is for partitioned tables of ClickHouse only; leave it out"
            )
        if self.event_time and self.by_name[self.event_time].type not in ("timestamp", "date"):
            raise ValueError(
                f"contract {self.asset}: the event time {self.event_time!r} is {self.by_name[self.event_time].type}; a "
                "timestamp with a time zone or a date is needed"
            )
        if self.event_time in self.key:
            raise ValueError(
                f"contract {self.asset}: the event time {self.event_time!r} is a part of the key, and a view has one row "
                "of an entity; name the entity alone"
            )
        if self.ttl_s is not None and (self.ttl_s <= 0 or not self.event_time):
            raise ValueError(
                f"contract {self.asset}: a TTL is more than 0 seconds, counted from an event time"
            )

    @property
    def store(self) -> str:
        """First part of the asset key: duckdb, postgres, clickhouse, chroma, qdrant, sqlite, redis, serving."""
        return self.asset.split("/", 1)[0]

    @property
    def table(self) -> str:
        """Physical table name, the last part of the asset key."""
        return self.asset.rsplit("/", 1)[-1]

    @property
    def schema(self) -> str:
        """Schema (DuckLake) or database (ClickHouse) or schema (PostgreSQL) that holds the table."""
        if self.store == "duckdb":
            prefix = self.table.split("_", 1)[0]
            return prefix if prefix in ("intake", "raw") else "features"
        return {"clickhouse": "ml_metrics"}.get(self.store, "public")

    @property
    def key_by_day(self) -> bool:
        """Whether a key may stand again on another day; never twice on one day of UTC, however short partitions are."""
        return bool(self.key) and self.partition_column is not None and not self.unique_across_days

    def requires(self, column: Column) -> bool:
        """Whether a column has a value in every row."""
        placed = column.name in (*self.key, self.partition_column) and column.name not in self.nullable_key
        return placed or not column.nullable

    @property
    def indexed(self) -> tuple[tuple[str, ...], ...]:
        """The columns of each index, one or several."""
        return tuple((columns,) if isinstance(columns, str) else columns for columns in self.indexes)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {column.name: column for column in self.columns}

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in storage order."""
        return tuple(column.name for column in self.columns)
