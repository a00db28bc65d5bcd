"""What speaks for which cause, and what is written of it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest

from ml_assets.errors import Refusal
from ml_assets.lib.why import Claim, Explanation, Facts, Row, Summary, explain, strange_figures
from ml_assets.operations.why import day_of, summarised
from ml_assets.settings import Settings
from ml_assets_tests.json_server import JSONServer, serving

DAY = date(2026, 11, 24)
START = datetime(2026, 11, 24, tzinfo=UTC)


def episode(metric: str = "accuracy", kind: str = "quality", **given: Any) -> dict[str, Any]:
    level = {"before": 0.95, "after": 0.6, "change": -0.37, "low": -0.4, "high": -0.3, "confidence": 0.9999}
    return {
        "model_name": "m",
        "metric": metric,
        "slice": "all",
        "slice_value": "",
        "kind": kind,
        "direction": "down" if kind == "quality" else "up",
        "opened_at": START,
        "began_at": START,
        "closed_at": None,
        "description": f"The {metric} of m fell.",
        **level,
        **given,
    }


def drifted(count: int, of: int = 10, on: datetime = START) -> list[dict[str, Any]]:
    return [
        {
            "day": on,
            "subject": "input",
            "feature": f"x_{n}",
            "kind": "number",
            "ks": 0.9 - n / 100 if n < count else 0.01,
            "psi": 1.0,
            "threshold": 0.1,
            "corrected_p": 1e-9,
            "state": "drift" if n < count else "none",
        }
        for n in range(of)
    ]


def run(
    version: int, accuracy: float = 0.95, digest: str = "same", rows: int = 100, **given: Any
) -> dict[str, Any]:
    data = {"name": "d", "digest": digest, "context": "training", "row_count": rows, "feature_count": 4}
    return {
        "id": f"r{version}",
        "model_name": "m",
        "model_version": str(version),
        "dataset": "d",
        "parameters": {"lr": "0.1"},
        "metrics": {"accuracy": accuracy},
        "tags": {"mlflow.datasets": [{**data, "context": "validation", "digest": "v"}, data]},
        "notes": None,
        "created_at": START + (version - 9) * timedelta(days=1) - timedelta(hours=2),
        **given,
    }


def used(version: int, before: float | None, after: float | None) -> dict[str, Any]:
    return {
        "model_version": str(version),
        "run_id": f"r{version}",
        "first_at": START + (version - 9) * timedelta(days=1),
        "last_at": START + (version - 8) * timedelta(days=1),
        "before_count": 0 if before is None else 5,
        "before_value": before,
        "after_count": 0 if after is None else 5,
        "after_value": after,
    }


def answered(version: int) -> dict[str, Any]:
    return {"run_id": f"r{version}", "model_version": str(version)}


def facts(*runs: dict[str, Any], **given: Any) -> Facts:
    """Version 9 came after version 8 with the episode, if not told otherwise."""
    usual = {
        "episodes": [episode()],
        "runs": {each["id"]: each for each in runs},
        "before": [answered(8)],
        "after": answered(9),
        "in_use": [used(8, 0.95, None), used(9, None, 0.6)],
    }
    return Facts("m", DAY, **{**usual, **given})


def verdicts(found: Explanation) -> dict[str, str]:
    return {cause.name: cause.verdict for cause in found.causes}


def topics(found: Explanation, numbers: tuple[int, ...]) -> list[str]:
    return [found.claims[number - 1].topic for number in numbers]


LAMP = facts(
    run(8, digest="eight"),
    run(9, digest="nine"),
    run(
        10, digest="ten", rows=110, notes="The rows of the day differ in 5 of 10 features.", created_at=START
    ),
    drift=[*drifted(0, on=START - timedelta(days=1)), *drifted(6)],
    drift_day=DAY,
    peers=[
        {"dataset": "d", "models": 2, "worse": 2, "names": ["m", "n"]},
        {"dataset": "e", "models": 5, "worse": 0, "names": []},
    ],
    in_use=[used(n, 0.95, None) for n in range(4, 9)] + [used(n, None, 0.6) for n in (9, 10, 11)],
    made_then=["r10"],
)
"""As the demo: versions are replaced daily, the inputs of one dataset are other ones from a day on."""


def test_what_changes_daily_is_no_cause_and_the_data_that_changed_once_are():
    found = explain(LAMP)
    assert verdicts(found) == {"data": "likely", "version": "unlikely", "training data": "unlikely"}
    data, version = found.causes[0], found.causes[-1]
    assert (
        topics(found, data.supports) == ["drift", "other models", "later versions"] and not data.contradicts
    )
    assert {"version", "parameters", "at training"} <= set(topics(found, version.contradicts))
    assert (found.dataset, found.day) == ("d", DAY)
    assert found.headline == (
        "m became worse on 2026-11-24. Most likely: the inputs of the dataset d, on which m answers, changed on "
        "2026-11-24; the first training set that was made since then is d (digest ten, 110 rows) of the run r10."
    )
    text = " ".join(claim.sentence for claim in found.claims)
    assert (
        "6 of the 10 inputs of m of 2026-11-24 are other than in its baseline, and of 2026-11-23 none of 10"
        in text
    )
    assert (
        "2 of the 2 models that answer on d became worse within a day of 2026-11-24 (m, n); of 5 models on 1"
        in text
    )
    assert "Its notes: “The rows of the day differ in 5 of 10 features.”" in text
    assert all(claim.rows for claim in found.claims)


def test_a_version_that_was_bad_from_the_beginning_is_the_cause():
    found = explain(
        facts(
            run(8),
            run(9, accuracy=0.62, parameters={"lr": "10", "depth": "2"}),
            drift=drifted(0),
            drift_day=DAY,
            peers=[{"dataset": "d", "models": 2, "worse": 1, "names": ["m"]}],
        )
    )
    assert found.causes[0].name == "version" and verdicts(found)["version"] == "likely"
    assert verdicts(found)["data"] == "unlikely"
    assert "Versions 8 and 9 differ in depth (none before, 2 now), lr (0.1 before, 10 now)." in [
        claim.sentence for claim in found.claims
    ]
    assert "Most likely: version 9 of m is worse than the one before it." in found.headline


def test_a_version_that_goes_on_beside_the_new_one_tells_data_from_version():
    both = facts(run(8), run(9), in_use=[used(8, 0.95, 0.61), used(9, None, 0.6)])
    assert explain(both).causes[0].name == "data"
    same = replace(both, drift=drifted(0), drift_day=DAY, peers=LAMP.peers)
    assert explain(same).causes[0].sentence == (
        "what is right for the inputs of the dataset d, on which m answers, changed on 2026-11-24, while "
        "the inputs did not."
    )
    alone = facts(run(8), run(9), in_use=[used(8, 0.95, 0.94), used(9, None, 0.6)])
    assert explain(alone).causes[0].name == "version"


def test_a_training_set_that_stood_still_and_lost_half_of_its_rows_is_the_cause():
    found = explain(
        facts(
            run(7),
            run(8),
            run(9, accuracy=0.7, digest="other", rows=40),
            before=[answered(7), answered(8)],
        )
    )
    assert found.causes[0].name == "training data" and verdicts(found)["training data"] == "likely"
    assert any("60% of the rows are gone" in claim.sentence for claim in found.claims)


def test_the_same_version_on_the_same_data_is_cleared():
    found = explain(facts(run(8), after=answered(8), in_use=[used(8, 0.95, 0.6)]))
    assert verdicts(found) == {"version": "unlikely", "training data": "unlikely"}
    assert found.headline == "m became worse on 2026-11-24. Nothing that is recorded explains it."


def test_more_requests_explain_latency_and_not_quality():
    load = {"before_requests": 100.0, "after_requests": 300.0, "before_batch": 1.0, "after_batch": 1.0}
    slow = episode("p95_inference_time_ms", "latency", before=10.0, after=30.0)
    found = explain(facts(run(8), after=answered(8), episodes=[slow], load=load))
    assert (found.causes[0].name, found.causes[0].verdict) == ("load", "likely")
    assert "load" not in verdicts(explain(facts(run(8), after=answered(8), load=load)))
    still = {**load, "after_requests": 101.0}
    assert verdicts(explain(facts(run(8), episodes=[slow], load=still)))["load"] == "unlikely"


def test_nothing_known_is_said():
    found = explain(Facts("m", DAY, [episode()], missing=["No run is known."]))
    assert (found.causes, found.notes) == ((), ("No run is known.",))
    assert found.headline.endswith("Nothing that is recorded explains it.")
    other = explain(Facts("m", DAY, [episode()], elsewhen=[episode(began_at=START + timedelta(days=2))]))
    assert "began on 2026-11-26" in other.notes[0]
    odd = facts(run(8, metrics=None, tags=None, parameters=None), run(9, metrics={"accuracy": "?"}, tags={}))
    assert explain(odd).claims


def test_markdown_shows_names_as_they_are_and_json_holds_every_row():
    claim = Claim("pins", "a | b <script> *x* _y_ x_0", (Row("t", {"k": START}, {"v": float("nan")}),))
    found = explain(replace(LAMP, model_name="a|b\nc", pinned=[claim]))
    page = found.markdown(2)
    assert page.startswith("## Why a\\|b c became worse on 2026-11-24\n")
    assert r"a \| b &lt;script&gt; \*x\* \_y\_ x_0" in page
    assert all(line.count("|") - line.count("\\|") == 5 for line in page.splitlines() if line.startswith("|"))
    told = json.loads(orjson.dumps(found.as_json()))
    assert told["claims"][-1]["rows"] == [
        {"table": "t", "key": {"k": "2026-11-24T00:00:00+00:00"}, "values": {"v": None}}
    ]
    assert [each["number"] for each in told["claims"]] == list(range(1, len(found.claims) + 1))


def test_figures_that_no_fact_has_are_named():
    assert (
        strange_figures("It fell by 41.6% to 1066, on 2026-11-24.", ["41.6 %, 1,066 rows", "2026-11-24"])
        == ()
    )
    assert strange_figures("It fell by 42 %, version 9.", ["41.6 %", "version 9"]) == ("42",)
    assert Summary("x", "llama", ("42",)).mark.endswith("It names figures that the facts do not have: 42.")


def test_a_day_is_a_day():
    assert (day_of("2026-11-24"), day_of(DAY), day_of(None)) == (DAY, DAY, None)
    with pytest.raises(Refusal, match="'yesterday' is no day: write it as 2026-11-24"):
        day_of("yesterday")


@pytest.fixture
def server() -> Iterator[JSONServer]:
    with serving(lambda count, body: (404, {"error": "model not found"})) as server:
        yield server


def test_a_chat_model_is_told_the_facts_alone_and_its_prose_is_marked(server: JSONServer):
    found = explain(LAMP)
    url = f"http://me:secret@127.0.0.1:{server.server_port}"
    settings = Settings(ollama_url=url, ollama_chat_model="llama3.2")
    assert summarised(Settings(ollama_url=url), found) is found and not server.requests

    server.answer = lambda count, body: (
        200,
        {"message": {"content": " The inputs of d changed; 77 % did.\n"}},
    )
    told = summarised(settings, found)
    assert told.summary == Summary("The inputs of d changed; 77 % did.", "llama3.2", ("77",))
    assert (told.causes, told.claims, told.notes) == (found.causes, found.claims, found.notes)
    [(path, asked, _)] = server.requests
    assert (path, asked["model"], asked["stream"]) == ("/api/chat", "llama3.2", False)
    assert asked["messages"][1]["content"] == "\n".join(f"- {fact}" for fact in found.facts())
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    page = told.markdown()
    assert "> The inputs of d changed; 77 % did." in page
    assert (
        "> *Written by the language model llama3.2 from the facts below; they count, not it. It names figures"
        in page
    )
    assert told.as_json()["summary"]["figures_without_fact"] == ["77"]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((404, {"error": "no"}), "has no such model: run `ollama pull llama3.2`"),
        ((500, {"error": "out of memory"}), "answered with status 500"),
        ((200, {"message": {}}), "answered without a text"),
        ((200, {"message": {"content": "  "}}), "answered without a text"),
        ((200, ["half"]), "answered without a text"),
        (None, "does not answer"),
    ],
)
def test_facts_stay_where_no_prose_comes(server: JSONServer, answer: Any, sentence: str):
    server.answer = lambda count, body: answer
    url = f"http://me:secret@127.0.0.1:{server.server_port}"
    told = summarised(Settings(ollama_url=url, ollama_chat_model="llama3.2"), explain(LAMP))
    assert told.summary is None and told.claims
    assert told.notes[-1].startswith("There is no summary in prose: ") and sentence in told.notes[-1]
    assert "secret" not in told.notes[-1]
