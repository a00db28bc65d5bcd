"""Features: what SQL files of the lake make."""

from ml_assets.contracts.columns import count, json_column, named, need, number, text, time, without
from ml_assets.contracts.model import Column, Contract
from ml_assets.contracts.streams import PERFORMANCE_COLUMNS, PREDICTION_COLUMNS, RUN_STATUSES

EVENT_COLUMNS = (
    *PERFORMANCE_COLUMNS,
    text("model_type"),
    text("dataset"),
    number("trained_accuracy", "accuracy that the run reported when it was trained"),
    number("model_age_s", "seconds from the end of the training to the event"),
)
"""A performance event with what is known of the run behind it."""


def tables() -> tuple[Contract, ...]:
    """The tables of the room."""
    return (
        Contract(
            "duckdb/run_features",
            "one run as numbers: outcome, learning curve, and how its model stood before",
            (
                need("run_id"),
                text("parent_run_id"),
                need("experiment"),
                text("name"),
                text("model_name"),
                text("model_version"),
                text("model_type"),
                text("dataset"),
                need("status", choices=RUN_STATUSES),
                time("created_at", "start of the run, UTC; its day is the partition"),
                time("completed_at", nullable=True),
                number("duration_s", "from start to end in seconds"),
                count("parameter_count", "hyper-parameters that were logged"),
                count("metric_count", "different metrics that were logged"),
                count("point_count", "metric values over all steps"),
                Column("last_step", "int64", description="highest step that was logged"),
                text(
                    "primary_metric",
                    "canonical name of the metric that judges the run; docs/metrics.md has the rule",
                ),
                text("primary_metric_key", "the key that it is logged under"),
                number("primary_value", "its last value"),
                Column("primary_higher_is_better", "bool", description="whether a larger one is better"),
                number("accuracy", "last accuracy, or the first of its synonyms"),
                number("f1_score", "last macro F1, or the first of its synonyms"),
                number("loss", "last loss, or the first of its synonyms"),
                number("best_loss", "lowest loss over all steps"),
                number("loss_slope", "least-squares slope of loss over step"),
                count("previous_runs", "completed runs of the same model before this one started"),
                number(
                    "previous_primary_value",
                    "primary value of the last of them that is judged by the same metric, as it was known then",
                ),
                number("previous_best_primary_value", "best of those, as it was known then"),
                number("primary_change", "primary_value minus previous_primary_value"),
                number("previous_accuracy", "accuracy of the last of them, as it was known then"),
                number("previous_best_accuracy", "best accuracy of them, as it was known then"),
                number("accuracy_change", "accuracy minus previous_accuracy"),
                json_column("metrics", "last value of every metric, reported or logged, as one JSON object"),
                json_column("parameters", "hyper-parameters as one JSON object"),
                text("notes", "free text"),
                text("error", "why a failed run failed"),
            ),
            key=("run_id",),
            partition_column="created_at",
            unique_across_days=True,
        ),
        Contract(
            "duckdb/experiment_cards",
            "one run as a short text that a person would search for",
            (
                need("run_id"),
                need("title"),
                need("text"),
                json_column("metadata"),
                need("content_hash", "SHA-256 of title and text: what decides about a new embedding"),
                time("created_at", "start of the run, UTC"),
            ),
            key=("run_id",),
            unique_across_days=True,
        ),
        Contract(
            "duckdb/model_performance_events",
            "one performance event with what is known of the run behind it",
            EVENT_COLUMNS,
            key=("event_id",),
            partition_column="timestamp",
            order_by=("model_name", "timestamp"),
        ),
        Contract(
            "duckdb/ml_predictions",
            "one prediction, scored where the truth is known",
            (
                need("id", "prediction_id"),
                *without(PREDICTION_COLUMNS, "prediction_id", "created_at"),
                Column("is_correct", "bool", description="null while the truth is unknown"),
                named(PREDICTION_COLUMNS, "created_at"),
            ),
            key=("id",),
            partition_column="created_at",
        ),
        Contract(
            "duckdb/document_chunks",
            "a passage of a document, small enough for the embedding model",
            (
                need("chunk_id", "document_id and index"),
                need("document_id"),
                count("chunk_index", "from 0"),
                text("title"),
                need("text"),
                text("source"),
                count("token_count", "tokens of the embedding model"),
                json_column("metadata"),
                need("content_hash", "SHA-256 of title and text: what decides about a new embedding"),
                time("updated_at", "last change of the document, UTC"),
            ),
            key=("chunk_id",),
        ),
    )
