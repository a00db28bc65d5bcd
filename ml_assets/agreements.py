"""What neighbouring tables must have in common: the numbers that asset checks and the reconciliation compare.

Facts about pairs of tables, as contracts.py holds facts about single ones. No connections, no dagster.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """A number that this table and the one upstream must have in common, over the days of the run.

    Args:
        parent: asset upstream.
        text: what is counted, for the reader.
        here, there: SQL aggregates over the rows of the two tables.
        where_here, where_there: SQL conditions on the rows.
    """

    parent: str
    text: str = "Every row upstream is here, and no other."
    here: str = "count(*)"
    there: str = "count(*)"
    where_here: str = ""
    where_there: str = ""


_BELONGING = (
    "sum((SELECT count(*) FROM {table} AS mine WHERE mine.experiment_id = ml_experiments.id "
    "AND mine.day = substr(ml_experiments.created_at, 1, 10)))"
)

AGREEMENTS: dict[str, tuple[Agreement, ...]] = {
    "postgres/ml_experiments": (Agreement("duckdb/raw_runs"),),
    "sqlite/ml_experiments": (
        Agreement(
            "postgres/ml_experiments",
            text="Every row upstream is here, those that the resource's operations made as well, and no other.",
        ),
    ),
    "sqlite/ml_model_artifacts": (
        Agreement(
            "sqlite/ml_experiments",
            text="Every file belongs to a run that is here, on that run's day.",
            there=_BELONGING.format(table="ml_model_artifacts"),
        ),
    ),
    "sqlite/ml_training_data": (
        Agreement(
            "postgres/ml_experiments",
            text="Every run that names a dataset has its data here.",
            here="count(DISTINCT experiment_id)",
            where_there="dataset <> ''",
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
            here="count(DISTINCT document_id)",
            where_there="trim(text) <> ''",
        ),
    ),
    "clickhouse/ml_model_performance": (Agreement("duckdb/model_performance_events"),),
    "clickhouse/performance_hourly": (
        Agreement(
            "clickhouse/ml_model_performance",
            text="Every event is counted in one hour, and only once.",
            here="sum(evaluation_count + request_count)",
        ),
    ),
    "postgres/experiment_embeddings": (Agreement("duckdb/experiment_cards"),),
    "postgres/document_embeddings": (Agreement("duckdb/document_chunks"),),
    "serving/online_features": (
        Agreement(
            "duckdb/run_features",
            text="Every model with a completed run is served.",
            there="count(DISTINCT model_name)",
            where_there="status = 'completed'",
        ),
    ),
}
"""By the asset downstream."""

INDEXED = {
    "chroma/experiment_index": "postgres/experiment_embeddings",
    "chroma/document_index": "postgres/document_embeddings",
}
"""Indexes whose rows are those of a table with vectors: they must agree with it, and can be made of it again."""
