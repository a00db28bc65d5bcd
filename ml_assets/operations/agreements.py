"""What neighbouring tables must have in common: the keys and values that asset checks and the reconciliation compare.

Facts about pairs of tables, as contracts.py holds facts about single ones. No connections, no dagster.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Rows that this table and the one upstream must both have, over the days of the run.

    They are compared by their keys, not by their number alone, and by how many of them have a value in each column
    that is carried over: rows whose contents are gone agree no more than rows that are gone.

    Args:
        parent: asset upstream.
        text: what is compared, for the reader.
        actual_key, expected_key: SQL of a row's key as text; the key of the contract, if that is one column.
        actual_where, expected_where: SQL conditions on the rows.
        actual_rows, expected_rows: SELECT in `sql/` that makes the rows to be compared of those that the table has.
        values: columns that have at least as many values here as there; all that both tables have if None.
    """

    parent: str
    text: str = "Every row upstream is here with its values, and no other."
    actual_key: str = ""
    expected_key: str = ""
    actual_where: str = ""
    expected_where: str = ""
    actual_rows: str = ""
    expected_rows: str = ""
    values: tuple[str, ...] | None = None


_DATASET = (
    "experiment_id || ' ' || dataset_name || ' ' || coalesce(context, '') || ' ' || coalesce(digest, '')"
)

_FILE = "coalesce(', ' || size_bytes || ' bytes', '') || coalesce(', sha256 ' || sha256, '')"
"""What is known of a file, as a part of its key: so it is compared, and shown."""

_RUN_AND_KEY = "run_id || ' ' || key"

_HOUR = "formatDateTime(hour, '%Y-%m-%dT%H:%i:%SZ', 'UTC')"

AGREEMENTS: dict[str, tuple[Agreement, ...]] = {
    "postgres/ml_experiments": (Agreement("duckdb/raw_runs"),),
    "postgres/ml_run_metrics": (
        Agreement(
            "duckdb/raw_runs",
            text="Every metric that a run reported or logged is here, and no other.",
            actual_key=_RUN_AND_KEY,
            expected_key=_RUN_AND_KEY,
            expected_rows="duckdb/agreements/metrics_of_runs.sql",
            values=("last",),
        ),
    ),
    "postgres/ml_run_params": (
        Agreement(
            "duckdb/raw_runs",
            text="Every parameter of a run is here, and no other.",
            actual_key=_RUN_AND_KEY,
            expected_key=_RUN_AND_KEY,
            expected_rows="duckdb/agreements/params_of_runs.sql",
            values=("text",),
        ),
    ),
    "sqlite/ml_experiments": (
        Agreement(
            "postgres/ml_experiments",
            text="Every row upstream is here, those that the resource's operations made as well, and no other.",
        ),
    ),
    "sqlite/ml_model_artifacts": (
        Agreement(
            "sqlite/ml_experiments",
            text="Every file of a run that is here is here, on that run's day, with the size and checksum that it had.",
            actual_key=f"experiment_id || ' ' || coalesce(json_extract(metadata, '$.path'), '') || {_FILE}",
            expected_key=f"experiment_id || ' ' || path || {_FILE}",
            expected_rows="sqlite/agreements/files_of_runs.sql",
            values=(),
        ),
    ),
    "sqlite/ml_training_data": (
        Agreement(
            "postgres/ml_experiments",
            text="Every dataset of a run is here, with its digest, context and number of rows.",
            actual_key=_DATASET,
            expected_key=_DATASET,
            expected_rows="postgres/agreements/datasets_of_runs.sql",
            values=("context", "digest", "row_count"),
        ),
    ),
    "duckdb/run_features": (Agreement("duckdb/raw_runs"),),
    "duckdb/experiment_cards": (Agreement("duckdb/run_features"),),
    "duckdb/model_performance_events": (Agreement("duckdb/raw_performance"),),
    "duckdb/ml_predictions": (Agreement("duckdb/raw_predictions"),),
    "duckdb/document_chunks": (
        Agreement(
            "duckdb/raw_documents",
            text="Every document that holds more than white space has passages.",
            actual_key="document_id",
            expected_where="trim(text) <> ''",
            actual_rows="duckdb/agreements/chunked_documents.sql",
            values=("source",),
        ),
    ),
    "clickhouse/ml_model_performance": (Agreement("duckdb/model_performance_events"),),
    "clickhouse/performance_hourly": (
        Agreement(
            "clickhouse/ml_model_performance",
            text="Every event is counted in its hour, and only once.",
            actual_key=f"concat({_HOUR}, ' ', model_name, ' ', toString(evaluation_count + request_count))",
            expected_key=f"concat({_HOUR}, ' ', model_name, ' ', toString(events))",
            expected_rows="clickhouse/agreements/hours_of_models.sql",
            values=("avg_accuracy", "avg_f1_score", "avg_inference_time_ms", "max_memory_usage_mb"),
        ),
    ),
    "postgres/experiment_embeddings": (Agreement("duckdb/experiment_cards"),),
    "postgres/document_embeddings": (Agreement("duckdb/document_chunks"),),
    "serving/online_features": (
        Agreement(
            "duckdb/run_features",
            text="Every model with a completed run is served.",
            expected_key="model_name",
            expected_rows="duckdb/agreements/latest_of_models.sql",
        ),
    ),
}
"""By the asset downstream."""
