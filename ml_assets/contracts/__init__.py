"""The contract of every table: columns, types, keys, partition column, ranges.

What belongs here: facts about tables that more than one room needs. The DDL, `dagster/column_schema`,
the validation inside a write and the asset checks are all derived from these objects; nothing else in
the project spells out a column list. How a type is stored in each store is in docs/types.md.

What does not: SQL, connections, and anything that imports dagster or a store.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ml_assets.lib.sql import is_name

ColumnType = Literal["string", "int64", "float64", "bool", "timestamp", "date", "json", "vector"]
"""Logical types. `timestamp` is UTC with microseconds, `json` is one JSON document as text in canonical
form (sorted keys, no white space), `vector` is a list of float32 of a fixed dimension."""

WriteMode = Literal["overwrite", "upsert_delete", "upsert"]
"""What a write does with the rows that are there. `overwrite` replaces the slice (the partitions of the
run, or the whole table), `upsert_delete` ends in the same rows but keeps the identity of those whose key
stays (what foreign keys point at survives), `upsert` never deletes."""

INDEXED_BYTES = 2_500
"""Longest text that rows are looked up by, in UTF-8. PostgreSQL's index entries hold 2,704 bytes, with what stands
beside it."""

EMBEDDING_DIMENSION = 384
"""Dimension of all-MiniLM-L6-v2, the default embedding model."""

_POSTGRES_BYTES = 63
"""Of a name; PostgreSQL cuts longer ones off without an error."""

_POSTGRES_OWN = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
_COLLECTION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,498}[a-zA-Z0-9](?<!--next)(?<!--old)")
"""Up to 12 characters less than Chroma takes, since maintenance gives collections names that end in more."""

_CLICKHOUSE_OWN = re.compile(
    r"write_ledger|write_contracts|.+__(lock|(stage|ready|failed|lock)__[0-9a-f_]{16,})", re.DOTALL
)
"""Names of the tables that ClickHouse's writers keep beside a table; see stores/clickhouse/redo.py and _lock.py."""

_CLICKHOUSE_LONGEST = 160
"""Characters of a table's name as a file has it, where a byte that is no letter, digit or _ has three. ClickHouse takes
203, and what writers add to the name has 43 at most."""

_FOLDER = re.compile(r"[A-Za-z0-9_-]{256,}")
"""Names that DuckLake would give to a folder, and no file system takes; it gives folders other names than any others."""

RUN_STATUSES = ("created", "running", "completed", "failed", "cancelled")
EVENT_KINDS = ("evaluation", "inference")


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
        indexes: columns that are looked up by; a GIN index in PostgreSQL for JSON. Stores without secondary
            indexes have none.
        asset_key: the whole key of an asset whose contract was inferred, of which `asset` is made.
        nullable_key: columns of the key that may be null, two nulls being equal. In the lake only, whose keys are
            no index.
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
    indexes: tuple[str, ...] = ()
    asset_key: str = ""
    nullable_key: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"contract {self.asset}: a column name stands twice in {names}")
        if faults := [*_misnamed(self.table, names), *_misnamed_in(self.store, self.table, self.columns)]:
            raise ValueError(f"contract {self.asset}: {faults[0]}; rename it")
        named = [*self.key, *self.order_by, *self.indexes, *(name for name, _ in self.scope)]
        named += [self.partition_column] if self.partition_column else []
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

    @property
    def store(self) -> str:
        """First part of the asset key: duckdb, postgres, clickhouse, chroma, sqlite, redis, serving."""
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

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {column.name: column for column in self.columns}

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in storage order."""
        return tuple(column.name for column in self.columns)


def _misnamed(table: str, columns: list[str]) -> Iterable[str]:
    for name in (table, *columns):
        if not is_name(name):
            yield f"{name!r} cannot be the name of a table or column, which is not empty and has no backslash and NUL"
    seen: dict[str, str] = {}
    for name in columns:
        # DuckDB, which checks and hashes for all stores, takes such columns for one.
        if (other := seen.setdefault(name.lower(), name)) != name:
            yield f"the names of columns {other!r} and {name!r} differ in upper and lower case only"


def _misnamed_in(store: str, table: str, columns: tuple[Column, ...]) -> Iterable[str]:
    """What one store refuses, or worse, changes without a word."""
    if store in ("postgres", "serving"):
        for name in (table, *(column.name for column in columns)):
            if (size := len(name.encode())) > _POSTGRES_BYTES:
                yield f"the name {name!r} has {size} bytes, and PostgreSQL cuts it off after {_POSTGRES_BYTES}"
        for column in columns:
            if column.name in _POSTGRES_OWN:
                yield f"each table of PostgreSQL has a column {column.name!r} of its own"
    if store == "duckdb":
        for column in columns:
            if column.name.lower().startswith("_ducklake_internal_"):
                yield f"DuckLake keeps names such as {column.name!r} for itself"
    if store == "clickhouse" and _CLICKHOUSE_OWN.fullmatch(table):
        yield f"a table of ClickHouse cannot have the name {table!r}, which its writers give to tables of their own"
    if store == "clickhouse" and (size := _escaped_length(table)) > _CLICKHOUSE_LONGEST:
        yield (
            f"the name {table!r} has {size} characters in a file's name, where each byte that is no letter, digit or _ "
            f"takes three, and {_CLICKHOUSE_LONGEST} are the most that ClickHouse and its writers have room for"
        )
    if store == "duckdb" and _FOLDER.fullmatch(table):
        yield f"the name {table!r} has {len(table)} bytes, and the folder that DuckLake gives it may have 255"
    if store == "chroma":
        if not _COLLECTION.fullmatch(table):
            yield (
                f"a collection of Chroma cannot have the name {table!r}, but one of 3 to 500 characters of "
                "[a-zA-Z0-9._-] that begins and ends in a letter or digit and not in --next or --old"
            )
        whole = [column.name for column in columns if column.type in ("json", "float64")]
        for column in columns:
            if column.name.startswith(("#", "$", "chroma:")):
                yield f"Chroma keeps names such as {column.name!r}, with #, $ or chroma: in front, for itself"
            for other in whole:
                if column.name.startswith(f"{other}."):
                    yield f"column {column.name!r} would be taken for a part of the column {other!r}"


def _escaped_length(name: str) -> int:
    """Length of a name as ClickHouse writes it in that of a file."""
    return sum(
        1 if byte.isascii() and (byte.isalnum() or byte == "_") else 3
        for byte in name.encode().decode("latin-1")
    )


def _text(name: str, description: str = "", **kw) -> Column:
    return Column(name, "string", description=description, **kw)


def _need(name: str, description: str = "", **kw) -> Column:
    return Column(name, "string", nullable=False, description=description, **kw)


def _time(name: str, description: str = "", nullable: bool = False) -> Column:
    return Column(name, "timestamp", nullable=nullable, description=description)


def _json(name: str, description: str = "") -> Column:
    return Column(name, "json", description=description)


def _float(name: str, description: str = "", **kw) -> Column:
    return Column(name, "float64", description=description, **kw)


def _count(name: str, description: str = "", nullable: bool = False) -> Column:
    return Column(name, "int64", nullable=nullable, minimum=0, description=description)


def _share(name: str, description: str = "", nullable: bool = True) -> Column:
    return Column(name, "float64", nullable=nullable, minimum=0.0, maximum=1.0, description=description)


def _vector(name: str) -> Column:
    return Column(
        name, "vector", nullable=False, dimension=EMBEDDING_DIMENSION, description="unit-length vector"
    )


# --- streams: what comes in -------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """What tells which of two rows of a key is the later state. A row that tells nothing is the earlier one.

    Args:
        columns: the first of them that has a value counts; the greater value is later.
        stages: values from early to late, those of one tuple equally late, in place of greater and smaller.
        known: whether there is a value is all that counts.
    """

    columns: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...] = ()
    known: bool = False


@dataclass(frozen=True)
class Stream:
    """One kind of input row: landing/<name>/*.{jsonl,csv,parquet}, and for some of them MLflow.

    Args:
        name: folder name, and suffix of the tables `intake_<name>` and `raw_<name>`.
        description: what one row is.
        columns: the columns a row may have; whatever is not nullable must be there.
        key: natural key; the latest update of a key wins.
        mlflow_key: columns that MLflow's own key has besides. Its rows that differ in them are different rows,
            while a landed row takes the place of whatever else has its key.
        day_column: timestamp whose UTC day is the row's partition; None if the stream has no event time.
        versions: compared in this order to find the latest update of a key. Of equally late rows the one with
            more values wins, then the greater content hash, so the result does not depend on the order of arrival.
        extras_column: JSON column that keeps unknown columns.
        from_mlflow: whether MLflow has such rows too.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    day_column: str | None
    versions: tuple[Version, ...]
    extras_column: str
    from_mlflow: bool = False
    mlflow_key: tuple[str, ...] = ()

    @property
    def unique_across_days(self) -> bool:
        """Runs and documents exist once; measurements are identified within their day."""
        return self.name in ("runs", "documents")


RUN_COLUMNS = (
    _need("run_id", "identifier of the run, unique over all sources", max_bytes=INDEXED_BYTES),
    _text("parent_run_id", "run that this one is nested in"),
    _need("experiment", "experiment that the run belongs to", max_bytes=INDEXED_BYTES),
    _text("name", "name of the run"),
    _text("model_name", "registered or logical model that the run trains", max_bytes=INDEXED_BYTES),
    _text("model_version", "version of that model"),
    _text("model_type", "model family, such as random_forest", max_bytes=INDEXED_BYTES),
    _text("dataset", "dataset that the run was trained on"),
    _need("status", "state of the run", choices=RUN_STATUSES),
    _json("parameters", "hyper-parameters as one JSON object"),
    _json("metrics", "last value of every metric as one JSON object"),
    _json("tags", "tags, and whatever unknown columns the source had"),
    _text("notes", "free text"),
    _text("error", "why a failed run failed"),
    _text("artifact_uri", "where the run's files lie"),
    _time("created_at", "start of the run, UTC; its day is the partition"),
    _time("completed_at", "end of the run, UTC", nullable=True),
)

METRIC_COLUMNS = (
    _need("run_id", "run that logged the value"),
    _need("key", "name of the metric"),
    Column("step", "int64", nullable=False, description="training step, 0 where none was given"),
    _float("value", "value; NaN and infinities are lawful here"),
    _time("timestamp", "when it was logged, UTC; its day is the partition"),
)

PERFORMANCE_COLUMNS = (
    _need("event_id", "identifier of the event within its day"),
    _need("kind", "a scored evaluation or a served inference", choices=EVENT_KINDS),
    _time("timestamp", "when it happened, UTC; its day is the partition"),
    _need("model_name", "model that was evaluated or asked"),
    _text("model_version", "its version"),
    _text("experiment", "experiment that the model came from"),
    _text("run_id", "run that trained it"),
    _share("accuracy", "share of right answers"),
    _share("precision", "macro precision"),
    _share("recall", "macro recall"),
    _share("f1_score", "macro F1"),
    _float("inference_time_ms", "wall time of the batch in milliseconds", minimum=0.0),
    _float("memory_usage_mb", "memory in use in megabytes", minimum=0.0),
    _count("batch_size", "rows in the batch", nullable=True),
)

PREDICTION_COLUMNS = (
    _need("prediction_id", "identifier of the prediction within its day"),
    _text("run_id", "run that trained the model"),
    _need("model_name", "model that predicted"),
    _text("model_version", "its version"),
    _json("input_features", "the input as one JSON object"),
    _json("prediction", "the answer, any JSON"),
    _share("confidence", "probability that the model gave its answer"),
    _text("label", "the truth, once known"),
    _time("created_at", "when it was predicted, UTC; its day is the partition"),
)

EXTRAS = _json("extras", "whatever unknown columns the source had, as one JSON object")

DOCUMENT_COLUMNS = (
    _need("document_id", "identifier of the document", max_bytes=INDEXED_BYTES),
    _text("title"),
    _need("text", "the whole text"),
    _text("source", "where it came from"),
    _json("metadata", "whatever else is known"),
    _time("updated_at", "last change, UTC"),
)

STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        Stream(
            "runs",
            "a training run",
            RUN_COLUMNS,
            ("run_id",),
            "created_at",
            (
                Version(("completed_at", "created_at")),
                Version(
                    ("status",), stages=(("created",), ("running",), ("completed", "failed", "cancelled"))
                ),
                Version(("created_at",)),
            ),
            "tags",
            from_mlflow=True,
        ),
        Stream(
            "metrics",
            "one value of one metric of one run at one step",
            (*METRIC_COLUMNS, EXTRAS),
            ("run_id", "key", "step", "timestamp"),
            "timestamp",
            (),
            "extras",
            from_mlflow=True,
            mlflow_key=("value",),
        ),
        Stream(
            "performance",
            "an evaluation or an inference of a model, with its quality and cost",
            (*PERFORMANCE_COLUMNS, EXTRAS),
            ("event_id",),
            "timestamp",
            (Version(("timestamp",)),),
            "extras",
        ),
        Stream(
            "predictions",
            "one prediction of a model",
            (*PREDICTION_COLUMNS, EXTRAS),
            ("prediction_id",),
            "created_at",
            (Version(("created_at",)), Version(("label",), known=True)),
            "extras",
        ),
        Stream(
            "documents",
            "a text that people ask questions about",
            DOCUMENT_COLUMNS,
            ("document_id",),
            None,
            (Version(("updated_at",)),),
            "metadata",
        ),
    )
}

INTAKE_COLUMNS = (
    _need("unit", "file below landing/<stream>, or MLflow run id: what is loaded and retired as one"),
    _need("unit_hash", "SHA-256 of the unit's content; the ledger tells when and from where it was taken in"),
    Column("line", "int64", nullable=False, description="line or row number within the unit, from 1"),
    Column("day", "date", description="UTC day of the row; null for documents and quarantined rows"),
    _text("quarantine_reason", "why the row breaks its contract; null if it keeps it"),
    _text("raw_text", "the row as it came, kept only for quarantined rows"),
)


def _loose(columns: Iterable[Column]) -> tuple[Column, ...]:
    """The same columns, all nullable and without ranges: intake also holds rows that break the contract."""
    return tuple(Column(c.name, c.type, description=c.description) for c in columns)


def _stream_tables() -> Iterable[Contract]:
    for stream in STREAMS.values():
        yield Contract(
            f"duckdb/intake_{stream.name}",
            f"{stream.description}, as it arrived; the same one may arrive again",
            (*INTAKE_COLUMNS, *_loose(stream.columns)),
            key=("unit", "unit_hash", "line"),
            order_by=("day",),
        )
        yield Contract(
            f"duckdb/raw_{stream.name}",
            f"{stream.description}, typed and deduplicated",
            stream.columns,
            key=(*stream.key, *stream.mlflow_key),
            partition_column=stream.day_column,
            unique_across_days=stream.unique_across_days,
            nullable_key=stream.mlflow_key,
        )


# --- experiments ------------------------------------------------------------------------------------

_EXPERIMENT_COLUMNS = (
    _need("id", "the run's run_id", max_bytes=INDEXED_BYTES),
    *RUN_COLUMNS[1:],
)

EXPERIMENT_TABLES = (
    Contract(
        "postgres/ml_experiments",
        "one training run with its parameters and metrics",
        (
            *_EXPERIMENT_COLUMNS,
            _need(
                "origin",
                "graph: written from raw; api: created through the resource's operations",
                choices=("graph", "api"),
            ),
        ),
        key=("id",),
        partition_column="created_at",
        mode="upsert_delete",
        scope=(("origin", "graph"),),
        unique_across_days=True,
        indexes=("experiment", "status", "model_type", "parameters", "metrics", "tags"),
    ),
    Contract(
        "sqlite/ml_experiments",
        "the same runs in a single file to carry around",
        _EXPERIMENT_COLUMNS,
        key=("id",),
        partition_column="created_at",
        mode="upsert_delete",
        unique_across_days=True,
        indexes=("status", "model_type"),
    ),
    Contract(
        "sqlite/ml_model_artifacts",
        "one file that a run left behind",
        (
            _need("id", "hash of run and path"),
            _need("experiment_id", "run that wrote it"),
            _need("artifact_type", "model, plot, table, text or other"),
            _need("file_path", "where the file lies; the folder if it was not looked at"),
            Column("size_bytes", "int64", minimum=0, description="null if it is not known"),
            _text("sha256", "checksum; null if the file cannot be read from here"),
            _json("metadata", "path within the run, logged model, and the reason if it could not be read"),
            Column("day", "date", nullable=False, description="UTC day of the run, the partition"),
            _time("created_at", "start of the run, UTC"),
        ),
        key=("id",),
        partition_column="day",
        foreign_keys=(ForeignKey("experiment_id", "ml_experiments", "id"),),
        unique_across_days=True,
    ),
    Contract(
        "sqlite/ml_training_data",
        "one dataset that a run was trained or evaluated on",
        (
            _need("id", "hash of run, dataset and context"),
            _need("experiment_id", "run that used it"),
            _need("dataset_name"),
            _need("file_path", "where the data lies, or the scheme that made it"),
            _text("context", "training, validation or testing"),
            _text("digest", "fingerprint of the data"),
            _count("row_count", nullable=True),
            _count("feature_count", nullable=True),
            Column("day", "date", nullable=False, description="UTC day of the run, the partition"),
            _time("created_at", "start of the run, UTC"),
        ),
        key=("id",),
        partition_column="day",
        foreign_keys=(ForeignKey("experiment_id", "ml_experiments", "id"),),
        unique_across_days=True,
    ),
)

# --- features ---------------------------------------------------------------------------------------

FEATURE_TABLES = (
    Contract(
        "duckdb/run_features",
        "one run as numbers: outcome, learning curve, and how its model stood before",
        (
            _need("run_id"),
            _text("parent_run_id"),
            _need("experiment"),
            _text("name"),
            _text("model_name"),
            _text("model_version"),
            _text("model_type"),
            _text("dataset"),
            _need("status", choices=RUN_STATUSES),
            _time("created_at", "start of the run, UTC; its day is the partition"),
            _time("completed_at", nullable=True),
            _float("duration_s", "from start to end in seconds"),
            _count("parameter_count", "hyper-parameters that were logged"),
            _count("metric_count", "different metrics that were logged"),
            _count("point_count", "metric values over all steps"),
            Column("last_step", "int64", description="highest step that was logged"),
            _float("accuracy", "last accuracy"),
            _float("f1_score", "last macro F1"),
            _float("loss", "last loss"),
            _float("best_loss", "lowest loss over all steps"),
            _float("loss_slope", "least-squares slope of loss over step"),
            _count("previous_runs", "completed runs of the same model before this one started"),
            _float("previous_accuracy", "accuracy of the last of them, as it was known then"),
            _float("previous_best_accuracy", "best accuracy of them, as it was known then"),
            _float("accuracy_change", "accuracy minus previous_accuracy"),
            _json("parameters", "hyper-parameters as one JSON object"),
            _text("notes", "free text"),
            _text("error", "why a failed run failed"),
        ),
        key=("run_id",),
        partition_column="created_at",
        unique_across_days=True,
    ),
    Contract(
        "duckdb/experiment_cards",
        "one run as a short text that a person would search for",
        (
            _need("run_id"),
            _need("title"),
            _need("text"),
            _json("metadata"),
            _need("content_hash", "SHA-256 of title and text: what decides about a new embedding"),
            _time("created_at", "start of the run, UTC"),
        ),
        key=("run_id",),
        unique_across_days=True,
    ),
    Contract(
        "duckdb/model_performance_events",
        "one performance event with what is known of the run behind it",
        (
            *PERFORMANCE_COLUMNS,
            _text("model_type"),
            _text("dataset"),
            _float("trained_accuracy", "accuracy that the run reported when it was trained"),
            _float("model_age_s", "seconds from the end of the training to the event"),
        ),
        key=("event_id",),
        partition_column="timestamp",
        order_by=("model_name", "timestamp"),
    ),
    Contract(
        "duckdb/ml_predictions",
        "one prediction, scored where the truth is known",
        (
            _need("id", "prediction_id"),
            *PREDICTION_COLUMNS[1:8],
            Column("is_correct", "bool", description="null while the truth is unknown"),
            PREDICTION_COLUMNS[8],
        ),
        key=("id",),
        partition_column="created_at",
    ),
    Contract(
        "duckdb/document_chunks",
        "a passage of a document, small enough for the embedding model",
        (
            _need("chunk_id", "document_id and index"),
            _need("document_id"),
            _count("chunk_index", "from 0"),
            _text("title"),
            _need("text"),
            _text("source"),
            _count("token_count", "tokens of the embedding model"),
            _json("metadata"),
            _need("content_hash", "SHA-256 of title and text: what decides about a new embedding"),
            _time("updated_at", "last change of the document, UTC"),
        ),
        key=("chunk_id",),
    ),
)

# --- performance ------------------------------------------------------------------------------------

PERFORMANCE_TABLES = (
    Contract(
        "clickhouse/ml_model_performance",
        "one performance event",
        FEATURE_TABLES[2].columns,
        key=("event_id",),
        partition_column="timestamp",
        order_by=("model_name", "timestamp", "event_id"),
    ),
    Contract(
        "clickhouse/performance_hourly",
        "one hour of one model: quality, latency, memory, exact quantiles",
        (
            _time("hour", "start of the hour, UTC; its day is the partition"),
            _need("model_name"),
            _count("evaluation_count", "events of kind evaluation"),
            _count("request_count", "events of kind inference"),
            _count("run_count", "different runs behind the events"),
            _share("avg_accuracy"),
            _float("std_accuracy", "sample standard deviation; null for fewer than two values"),
            _share("avg_f1_score"),
            _float("avg_inference_time_ms", minimum=0.0),
            _float("p50_inference_time_ms", minimum=0.0),
            _float("p95_inference_time_ms", minimum=0.0),
            _float("p99_inference_time_ms", minimum=0.0),
            _float("max_memory_usage_mb", minimum=0.0),
        ),
        key=("hour", "model_name"),
        partition_column="hour",
        order_by=("model_name", "hour"),
        unique_across_days=True,
    ),
)

# --- embeddings -------------------------------------------------------------------------------------

EMBEDDING_TABLES = (
    Contract(
        "postgres/experiment_embeddings",
        "the vector of one experiment card",
        (
            _need("run_id"),
            _vector("embedding"),
            _need("model_name", "embedding model and its revision"),
            _need("content_hash", "of the card that was embedded"),
            _need("title"),
            _need("text"),
            _json("metadata"),
            _time("created_at", "start of the run, UTC"),
        ),
        key=("run_id",),
        mode="upsert_delete",
    ),
    Contract(
        "chroma/experiment_index",
        "the same vectors, searchable in Chroma",
        (
            _need("run_id"),
            _vector("embedding"),
            _need("text"),
            _json("metadata"),
        ),
        key=("run_id",),
        mode="upsert_delete",
    ),
    Contract(
        "postgres/document_embeddings",
        "the vector of one chunk",
        (
            _need("id", "chunk_id"),
            _need("document_id"),
            _vector("embedding"),
            _need("model_name", "embedding model and its revision"),
            _need("content_hash", "of the chunk that was embedded"),
            _text("title"),
            _need("text"),
            _json("metadata"),
            _time("created_at", "last change of the document, UTC"),
        ),
        key=("id",),
        mode="upsert_delete",
    ),
    Contract(
        "chroma/document_index",
        "the same vectors, searchable in Chroma",
        (
            _need("id", "chunk_id"),
            _vector("embedding"),
            _need("text"),
            _json("metadata"),
        ),
        key=("id",),
        mode="upsert_delete",
    ),
)

# --- serving ----------------------------------------------------------------------------------------

SERVING_TABLES = (
    Contract(
        "serving/online_features",
        "the features of one model as they stand now, for lookup by its name",
        (
            _need("model_name", "the entity"),
            _need("run_id", "latest completed run"),
            _text("model_version"),
            _text("model_type"),
            _text("dataset"),
            _float("accuracy"),
            _float("f1_score"),
            _float("previous_best_accuracy"),
            _float("accuracy_change"),
            _count("previous_runs"),
            _float("duration_s"),
            _time("event_timestamp", "start of that run, UTC"),
        ),
        key=("model_name",),
        mode="upsert_delete",
    ),
)

TABLES: dict[str, Contract] = {
    contract.asset: contract
    for contract in (
        *_stream_tables(),
        *EXPERIMENT_TABLES,
        *FEATURE_TABLES,
        *PERFORMANCE_TABLES,
        *EMBEDDING_TABLES,
        *SERVING_TABLES,
    )
}
"""Every contract by asset key (`store/table`)."""

INDEXED = {
    "chroma/experiment_index": "postgres/experiment_embeddings",
    "chroma/document_index": "postgres/document_embeddings",
}
"""Indexes whose rows are those of a table with vectors: they must agree with it, and can be made of it again."""
