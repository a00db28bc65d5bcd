"""The home that is kept of each format of a home: a few rows in every store, and all that lies beside them.

A home is made by the release whose format is to be kept, out of a checkout of it, and backed up by this one:

    PYTHONPATH=CHECKOUT python ml_assets_tests/kept_home.py HOME
    ML_ASSETS_HOME=HOME ml-assets backup home-0 && tar cJf ml_assets_tests/fixtures/home-0.tar.xz home-0

It calls what releases have in common. What a home holds is asserted in integration/test_upgrade.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

RUN = {
    "run_id": "r1",
    "experiment": "mine",
    "model_name": "cats",
    "status": "completed",
    "created_at": "2026-03-01T10:00:00Z",
    "parameters": {"lr": 0.1},
    "metrics": {"accuracy": 0.93},
}
LATER = {**RUN, "run_id": "r2", "created_at": "2026-03-02T10:00:00Z", "metrics": {"accuracy": 0.95}}
REFUSED = {**RUN, "run_id": "bad", "status": "gone fishing"}
CURVE = [
    {"run_id": "r1", "key": "loss", "step": n, "value": 1 / (n + 1), "timestamp": f"2026-03-01T10:0{n}:00Z"}
    for n in range(5)
]
EVENTS = [
    {
        **{"event_id": f"e{n}", "kind": "inference", "timestamp": f"2026-03-02T11:0{n}:00Z", "run_id": "r1"},
        **{"model_name": "cats", "model_version": "1", "inference_time_ms": 2.5 + n, "batch_size": 1},
    }
    for n in range(3)
]
PREDICTIONS = [
    {
        **{
            "prediction_id": f"p{n}",
            "created_at": f"2026-03-02T12:0{n}:00Z",
            "input_features": {"legs": 4 - n},
        },
        **{
            "model_name": "cats",
            "model_version": "1",
            "prediction": "cat",
            "confidence": 0.9,
            "label": label,
        },
    }
    for n, label in enumerate(("cat", "dog"))
]
DOCUMENTS = [
    {"document_id": "d1", "title": "Cats", "text": "Cats purr.", "updated_at": "2026-03-01T00:00:00Z"},
    {"document_id": "d2", "title": "Dogs", "text": "Dogs bark.", "updated_at": "2026-03-02T00:00:00Z"},
]
JUDGMENTS = [
    {
        **{"set_name": "animals", "query_id": "q1", "query": "which animal purrs", "document_id": "d1"},
        **{"relevance": 2, "judged_at": "2026-03-02T00:00:00Z"},
    }
]
FIRST = {
    "runs/first.jsonl": [RUN, LATER, REFUSED],
    "metrics/curve.jsonl": CURVE,
    "performance/events.jsonl": EVENTS,
    "predictions/answers.jsonl": PREDICTIONS,
    "documents/animals.jsonl": DOCUMENTS,
    "judgments/queries.jsonl": JUDGMENTS,
}
SECOND = {"runs/second.jsonl": [{**LATER, "run_id": "r3", "created_at": "2026-03-03T10:00:00Z"}]}
"""After the pin."""


def land(home: Path, files: dict[str, list[dict[str, object]]]) -> None:
    """Put them into the landing folders."""
    for name, rows in files.items():
        file = home / "landing" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def make(home: Path) -> None:
    """Fill a home by whatever release is imported."""
    import ml_assets
    from ml_assets.settings import Settings

    def command(*words: str) -> None:
        program = Path(sys.executable).with_name("ml-assets")
        subprocess.run([program, *words], check=True, env={**os.environ, "ML_ASSETS_HOME": str(home)})

    land(home, FIRST)
    light = ml_assets.connect(home, light=True)
    light_run = light.experiments.create("mine", model_name="mice", dataset="cheese", parameters={"lr": 0.2})
    kept = home / "model.txt"
    kept.write_text("squeak")
    light.artifacts.add(light_run, kept)
    light.training_data.add(light_run, "cheese", "s3://data/cheese", row_count=3, context="training")
    light.experiments.complete(light_run, {"accuracy": 0.8})
    light.adopt()
    track(Settings(home=home))
    command("refresh")
    ml_assets.connect(home).features.pin("paper")
    land(home, SECOND)
    command("refresh")
    command("down")


def track(settings: object) -> None:
    """A run in the home's MLflow."""
    from mlflow import MlflowClient

    uri = str(settings.embedded_mlflow_uri)  # pyright: ignore[reportAttributeAccessIssue]  # any release's
    Path(uri.removeprefix("sqlite:///")).parent.mkdir(exist_ok=True)
    client = MlflowClient(uri, uri)
    run = client.create_run(client.create_experiment("tracked"), run_name="owls")
    client.log_param(run.info.run_id, "lr", 0.3)
    client.log_metric(run.info.run_id, "accuracy", 0.7)
    client.set_terminated(run.info.run_id)


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
