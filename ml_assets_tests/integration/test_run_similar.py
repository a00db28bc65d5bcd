"""Runs that are like another one, or like words: vectors of the real model in a real PostgreSQL."""

import csv
import io
import json
from typing import Any

import pytest

from ml_assets import connect
from ml_assets.contracts import tables
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stack import Stack
from ml_assets.stores.postgres_table import ensure_table


@pytest.fixture
def cards(settings: Settings) -> Stack:
    """Runs with vectors of the embedder in use: of their titles."""
    stack = connect(settings=settings)
    embedder = stack._resources["embedder"].get()
    titles = {
        "r1": "gradient boosting on credit card fraud",
        "r2": "boosted trees that detect fraudulent payments",
        "r3": "convolutional network on photos of cats",
        "r4": "a neural network that recognises kittens",
    }
    contract = tables(stack.settings)["postgres/experiment_embeddings"]
    for n, run_id in enumerate(titles):
        model = "trees" if n < 2 else "nets"
        metrics, parameters = {"accuracy": 0.5 + n / 10, "loss": 1e300}, {"lr": 0.1}
        stack.experiments.create("mine", id=run_id, model_name=model, metrics=metrics, parameters=parameters)
    stack.experiments.create("mine", id="bare")
    with stack._resources["postgres"].connect(write=True) as connection:
        ensure_table(connection, contract)
        for (run_id, title), vector in zip(
            titles.items(), embedder.embed(list(titles.values())), strict=True
        ):
            connection.execute(
                "INSERT INTO experiment_embeddings "
                "(run_id, embedding, model_name, title, content_hash, text, created_at) "
                "VALUES (%s, %s::vector, %s, %s, '', '', now())",
                (run_id, str(vector.tolist()), embedder.name, title),
            )
    return stack


def test_runs_are_found_by_a_run_and_by_words(cards: Stack, cli: Any, environment: dict[str, str]) -> None:
    similar = cards.experiments.similar
    found = similar("r1")
    assert found[0]["run_id"] == "r2" and {each["run_id"] for each in found} == {"r2", "r3", "r4"}
    assert found[0]["score"] > 0.4 > found[1]["score"]
    assert found[0].keys() >= {
        "run_id",
        "experiment",
        "model_name",
        "status",
        "metrics",
        "parameters",
        "score",
    }
    assert found[0]["metrics"] == {"accuracy": 0.6, "loss": 1e300}
    assert [each["run_id"] for each in similar(text="pictures of cats", k=2)] == ["r3", "r4"]
    assert [each["run_id"] for each in similar("r1", where="model_name=nets,params.lr=0.10", k=1)] in (
        ["r3"],
        ["r4"],
    )
    assert [each["run_id"] for each in similar("r3", where="model_name = 'nets' OR status = 'failed'")] == [
        "r4"
    ]
    assert similar("r1", where={"status": "failed"}) == []

    done = cli(cards.home, "runs", "similar", "--text", "fraud", "-k", "2", "--json", **environment)
    assert {each["run_id"] for each in json.loads(done.stdout)} == {"r1", "r2"}, done.stderr
    done = cli(cards.home, "runs", "similar", "r3", "--csv", **environment)
    assert next(csv.DictReader(io.StringIO(done.stdout)))["metrics"] == '{"loss":1e+300,"accuracy":0.8}'
    done = cli(cards.home, "runs", "similar", "r3", **environment)
    assert "kittens" in done.stdout


def test_what_nothing_can_be_similar_to_is_said(cards: Stack, postgres: PostgresResource) -> None:
    similar = cards.experiments.similar
    refused: list[tuple[str, dict[str, Any]]] = [
        ("no run 'r9'", {"run_id": "r9"}),
        ("'bare' has no card", {"run_id": "bare"}),
        ("no word", {"text": " \n"}),
        ("Name either", {}),
        ("Name either", {"run_id": "r1", "text": "x"}),
        ("ask for 1 to 1,000", {"run_id": "r1", "k": 0}),
        ("colour", {"run_id": "r1", "where": "colour=red"}),
        ("NUL", {"text": "a\0"}),
        ("NUL", {"run_id": "a\0"}),
    ]
    for sentence, arguments in refused:
        with pytest.raises(Refusal, match=sentence):
            similar(**arguments)
    with postgres.connect(write=True) as connection:
        connection.execute("UPDATE experiment_embeddings SET model_name = 'another'")
    with pytest.raises(Refusal, match="embedded by another, and the settings name"):
        similar(text="fraud")
    with postgres.connect(write=True) as connection:
        connection.execute("DROP TABLE experiment_embeddings")
    with pytest.raises(StoreUnavailable, match="experiment_embeddings does not exist yet"):
        similar("r1")
