"""Serving: online features."""

from ml_assets.contracts.columns import count, need, number, text, time
from ml_assets.contracts.model import Column, Contract


def tables() -> tuple[Contract, ...]:
    """The tables of the room."""
    return (
        Contract(
            "serving/online_features",
            "the features of one model as they stand now, for lookup by its name",
            (
                need("model_name", "the entity"),
                need("run_id", "latest completed run"),
                text("model_version"),
                text("model_type"),
                text("dataset"),
                text("primary_metric", "canonical name of the metric that judges the run"),
                number("primary_value"),
                Column("primary_higher_is_better", "bool", description="whether a larger one is better"),
                number("previous_best_primary_value"),
                number("primary_change"),
                number("accuracy"),
                number("f1_score"),
                number("previous_best_accuracy"),
                number("accuracy_change"),
                count("previous_runs"),
                number("duration_s"),
                time("event_timestamp", "start of that run, UTC"),
            ),
            key=("model_name",),
            mode="upsert_delete",
        ),
    )
