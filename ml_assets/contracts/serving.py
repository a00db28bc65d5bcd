"""Serving: online features."""

from ml_assets.contracts.columns import count, need, number, text, time
from ml_assets.contracts.model import Contract


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
