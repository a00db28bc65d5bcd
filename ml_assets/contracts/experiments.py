"""Experiments: one row a run in PostgreSQL and SQLite, its artifacts and data."""

from ml_assets.contracts.columns import INDEXED_BYTES, count, json_column, need, number, text, time, without
from ml_assets.contracts.model import Column, Contract, ForeignKey
from ml_assets.contracts.streams import RUN_COLUMNS

EXPERIMENT_COLUMNS = (
    need("id", "the run's run_id", max_bytes=INDEXED_BYTES),
    *without(RUN_COLUMNS, "run_id"),
)


RUNS = Contract(
    "postgres/ml_experiments",
    "one training run with its parameters and metrics",
    (
        *EXPERIMENT_COLUMNS,
        need(
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
    indexes=(
        ("created_at", "id"),
        ("experiment", "created_at"),
        "status",
        "dataset",
        "model_name",
        "model_type",
        "parameters",
        "metrics",
        "tags",
    ),
)
"""The runs, which the resource's operations write, too."""

KEY_BYTES = 2_000
"""Longest key of a metric or parameter with a row of its own: 500 characters of any script. A run's other ones stand
in its JSON alone. With the run's id a key may have as many as `INDEXED_BYTES`."""

_RUN_ID = need("run_id", "the run", max_bytes=INDEXED_BYTES)
_ORIGIN = RUNS.by_name["origin"]
_STARTED = time("created_at", "start of the run, UTC; its day is the partition")

RUN_METRICS = Contract(
    "postgres/ml_run_metrics",
    "one metric of one run over all its points",
    (
        _RUN_ID,
        need("key", "name of the metric", max_bytes=KEY_BYTES),
        number("last", "last value, as the run has it among its metrics; may be NaN"),
        number("best", "max or min, whichever is better by the settings"),
        number("min", "lowest value; NaN is none, here and in the next three"),
        number("max", "highest value"),
        number("mean", "mean of the values; null if infinities of both signs are among them"),
        count("count", "values that are not NaN"),
        Column("last_step", "int64", description="highest step; null if the values had none"),
        time("first_nan_at", "when the first NaN was logged, UTC", nullable=True),
        _STARTED,
        _ORIGIN,
    ),
    key=("run_id", "key"),
    partition_column="created_at",
    mode="upsert_delete",
    scope=RUNS.scope,
    unique_across_days=True,
    indexes=(("key", "best"), ("key", "last"), ("key", "min"), ("key", "max"), ("key", "mean")),
)
"""The metrics of the runs, made for comparing and ordering."""

RUN_PARAMS = Contract(
    "postgres/ml_run_params",
    "one hyper-parameter of one run",
    (
        _RUN_ID,
        need("key", "name of the parameter", max_bytes=KEY_BYTES),
        need("text", "value as text; lists and objects as JSON"),
        number("number", "the same as a number, where it is one"),
        _STARTED,
        _ORIGIN,
    ),
    key=("run_id", "key"),
    partition_column="created_at",
    mode="upsert_delete",
    scope=RUNS.scope,
    unique_across_days=True,
    indexes=(("key", "number"), ("key", "text")),
)
"""The parameters of the runs, made for comparing and ordering."""
LEADERBOARD = Contract(
    "postgres/run_leaderboard",
    "how one model did on one dataset, over its completed runs there",
    (
        need("dataset", "its first 200 characters"),
        need("metric", "canonical name of what its models are ranked by"),
        need("model", "name of the model, else of the run, else its id; its first 200 characters"),
        Column(
            "rank", "int64", nullable=False, minimum=1, description="1 for the best mean; equal ones share it"
        ),
        Column("higher_is_better", "bool", nullable=False, description="which way the metric points"),
        Column("runs", "int64", nullable=False, minimum=1, description="completed runs that have the metric"),
        Column("mean", "float64", nullable=False, description="over these runs"),
        number("low", "lower end of the 95 % interval of the mean (Student's t); null for a single run"),
        number("high", "upper end of it"),
        number("deviation", "standard deviation over the runs; null for a single run", minimum=0.0),
        Column("best", "float64", nullable=False, description="of these runs: the more of them, the luckier"),
        need("best_run_id", "the run that has it"),
    ),
    key=("dataset", "metric", "model"),
    order_by=("dataset", "metric", "rank"),
)
"""The models of each dataset, best first."""


def tables() -> tuple[Contract, ...]:
    """The tables of the room."""
    return (
        RUNS,
        RUN_METRICS,
        RUN_PARAMS,
        LEADERBOARD,
        Contract(
            "sqlite/ml_experiments",
            "the same runs in a single file to carry around",
            EXPERIMENT_COLUMNS,
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
                need("id", "hash of run and path"),
                need("experiment_id", "run that wrote it"),
                need("artifact_type", "model, plot, table, text or other"),
                need("file_path", "where the file lies; the folder if it was not looked at"),
                Column("size_bytes", "int64", minimum=0, description="null if it is not known"),
                text("sha256", "checksum; null if the file cannot be read from here"),
                json_column(
                    "metadata", "path within the run, logged model, and the reason if it could not be read"
                ),
                Column("day", "date", nullable=False, description="UTC day of the run, the partition"),
                time("created_at", "start of the run, UTC"),
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
                need("id", "hash of run, dataset and context"),
                need("experiment_id", "run that used it"),
                need("dataset_name"),
                need("file_path", "where the data lies, or the scheme that made it"),
                text("context", "training, validation or testing"),
                text("digest", "fingerprint of the data"),
                count("row_count", nullable=True),
                count("feature_count", nullable=True),
                Column("day", "date", nullable=False, description="UTC day of the run, the partition"),
                time("created_at", "start of the run, UTC"),
            ),
            key=("id",),
            partition_column="day",
            foreign_keys=(ForeignKey("experiment_id", "ml_experiments", "id"),),
            unique_across_days=True,
        ),
    )
