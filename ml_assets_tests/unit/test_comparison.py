"""Runs side by side: what differs, which is best, what a metric went with. And the page, as far as it is text."""

import json
import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from ml_assets.lib.comparison import NOTE, comparable, compare
from ml_assets.lib.comparison_page import Curves, page
from ml_assets.lib.metric_rules import MetricRules, PrimaryMetric


def run(run_id: str, **columns: Any) -> dict[str, Any]:
    return {"run_id": run_id, "experiment": "e", "status": "completed", **columns}


def runs_of(*metrics: dict[str, Any], key: str = "metrics", **same: Any) -> list[dict[str, Any]]:
    return [run(f"r{i}", **{key: each}, **same) for i, each in enumerate(metrics)]


def by_key(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in table.to_pylist()}


@pytest.mark.parametrize(
    ("value", "same_as"),
    [
        ("1e-3", 0.001),
        (" 10 ", 10),
        (True, "true"),
        ("0.10", 0.1),
        ("9007199254740993", "9007199254740993"),
        (9007199254740993, "9007199254740993"),
        ("1e999", "1e999"),
        ("9" * 400, "9" * 400),
        ({"b": 1, "a": [2]}, '{"a":[2],"b":1}'),
        (math.nan, "nan"),
        ("NaN", "NaN"),
        ("", ""),
        (None, None),
    ],
)
def test_a_parameter_is_a_number_where_it_is_one(value, same_as):
    assert comparable(value) == same_as


def test_parameters_and_data_that_differ_come_first():
    found = compare(
        [
            run("a", dataset="digits", parameters={"lr": 0.1, "depth": 3, "only": 1}, tags={"by": "eva"}),
            run("b", dataset="wine", parameters={"lr": "1e-1", "depth": 4.0}, tags={"by": "eva"}),
        ]
    )
    rows = found.parameters.to_pylist()
    assert [(row["kind"], row["key"], row["differs"]) for row in rows] == [
        ("data", "dataset", True),
        ("parameter", "depth", True),
        ("parameter", "only", True),
        ("parameter", "lr", False),
        ("tag", "by", False),
    ]
    told = by_key(found.parameters)
    assert (told["depth"]["lowest"], told["depth"]["highest"], told["depth"]["values"]) == (3, 4, ["3", "4"])
    assert (told["only"]["runs"], told["only"]["distinct"], told["only"]["values"]) == (1, 1, ["1", None])
    assert (told["lr"]["value"], told["dataset"]["values"]) == ("0.1", ["digits", "wine"])
    assert any("several datasets" in note for note in found.notes)


def test_data_are_told_apart_by_their_fingerprint():
    def of(digest: str) -> dict[str, Any]:
        return {"mlflow.datasets": [{"name": "digits", "digest": digest, "context": "training"}]}

    found = compare([run("a", tags=of("1a")), run("b", tags=of("2b"))])
    [row] = found.parameters.to_pylist()
    assert (row["kind"], row["key"], row["values"]) == ("data", "training data", ["digits 1a", "digits 2b"])


def test_the_best_run_of_each_metric_is_the_one_of_its_direction():
    metrics = ({"accuracy": 0.9, "loss": 0.2, "depth": 3}, {"accuracy": 0.8, "loss": 0.1, "depth": 4})
    found = compare(runs_of(*metrics), MetricRules({"depth": "min"}), baseline="r1")
    told = by_key(found.metrics)
    assert {key: row["best_run"] for key, row in told.items()} == {
        "accuracy": "r0",
        "loss": "r1",
        "depth": "r0",
    }
    accuracy = told["accuracy"]
    assert (accuracy["best"], accuracy["worst"], accuracy["baseline"]) == (0.9, 0.8, 0.8)
    assert accuracy["deltas"] == pytest.approx([0.1, 0])
    assert (accuracy["spread"], accuracy["mean"]) == pytest.approx((0.1, 0.85))
    assert accuracy["std"] == pytest.approx(0.1 / math.sqrt(2))


def test_the_metric_that_judges_the_runs_is_what_a_comparison_is_about():
    metrics = [{"inference_time_ms": i, "rmse": i, "r2": 5 - i} for i in range(3)]
    runs = [run(f"r{i}", metrics=each, dataset="homes") for i, each in enumerate(metrics)]
    assert compare(runs).metric == "r2"
    rules = MetricRules(of_dataset={"homes": PrimaryMetric("rmse", "max")})
    found = compare(runs, rules)
    assert (found.metric, by_key(found.metrics)["rmse"]["best_run"]) == ("rmse", "r2")
    assert compare([*runs, run("other", dataset="boats")], rules).metric == "r2"
    rare = [*runs, *(run(f"x{i}", metrics={"mae": i}) for i in range(9))]
    assert compare(rare).metric == "mae"


def test_equal_values_have_no_best_run_and_no_importance():
    same = [run(f"r{i}", metrics={"accuracy": 0.5}, parameters={"lr": i}) for i in range(8)]
    found = compare(same)
    [row] = found.metrics.to_pylist()
    assert (row["best_run"], row["best"], row["spread"], row["std"]) == (None, 0.5, 0, 0)
    assert (found.metric, found.importance.num_rows) == (None, 0)
    assert any("No metric differs" in note for note in found.notes)
    [told] = compare(same, metric="accuracy").importance.to_pylist()
    assert (told["strength"], told["p"]) == (None, None)
    assert told["note"] == "The metric is the same in all runs that have it."


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf, "NaN", "Infinity", 10**400])
def test_what_is_not_finite_is_counted_and_never_the_best(lost):
    found = compare(runs_of({"loss": lost}, {"loss": 0.3}, {}), baseline="r0")
    [row] = found.metrics.to_pylist()
    assert (row["runs"], row["not_finite"], row["best"], row["std"]) == (1, 1, 0.3, None)
    assert (row["values"], row["baseline"], row["deltas"]) == ([None, 0.3, None], None, None)


def test_all_nan_is_a_sentence():
    found = compare(runs_of({"loss": math.nan}, {"loss": math.nan}))
    [row] = found.metrics.to_pylist()
    assert (row["runs"], row["not_finite"], row["best"], row["best_run"], row["mean"]) == (
        0,
        2,
        None,
        None,
        None,
    )
    assert "In every run that has it, loss is NaN or infinite." in found.notes
    assert "loss" in page(found, None, "", "")


def test_runs_with_nothing_in_common_are_a_sentence():
    found = compare(
        [run("a", parameters={"lr": 1}, metrics={"x": 1}), run("b", parameters={"c": 1}, metrics={"y": 2})]
    )
    assert "No parameter is known of more than one of these runs." in found.notes
    assert "No metric is known of more than one of these runs." in found.notes
    assert all(row["differs"] for row in found.parameters.to_pylist())
    bare = compare([run("a"), run("b", parameters=None, metrics="words", tags=[1])])
    assert "None of these runs has a metric." in bare.notes
    assert "None of these runs has a parameter." in bare.notes
    assert (bare.parameters.num_rows, bare.metrics.num_rows, bare.metric) == (0, 0, None)
    assert "Comparison of 2 runs" in page(bare, None, "", "")


def test_values_at_the_end_of_the_range_do_not_overflow():
    [row] = compare(runs_of({"x": 1.7e308}, {"x": -1.7e308}), baseline="r0").metrics.to_pylist()
    assert (row["spread"], row["deltas"], row["best_run"]) == (None, [0, None], "r0")
    assert row["std"] is None


@pytest.mark.parametrize(
    ("count", "more", "said"),
    [
        (0, {}, "There is no run to compare"),
        (1_001, {}, "takes 1 to 1,000 runs, and these are 1,001"),
        (2, {"metric": "acuracy"}, "metric 'acuracy': did you mean 'accuracy'?"),
        (2, {"metric": "zzz"}, "metric 'zzz': they have accuracy"),
        (2, {"baseline": "r9"}, "baseline 'r9' is none of the runs"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(count, more, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        compare(runs_of(*[{"accuracy": 0.1}] * count), **more)


def test_one_run_is_described():
    found = compare([run("a", metrics={"x": 1.0}, parameters={"lr": 1})])
    assert found.notes[0] == "There is one run, and nothing to compare it with."
    assert by_key(found.metrics)["x"]["best_run"] == "a"


def sweep(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Accuracy rises with depth, is best at lr 0.01, depends on the optimizer, and on nothing else."""
    chance = np.random.default_rng(seed)
    found = []
    for i in range(n):
        lr, depth = float(10 ** chance.uniform(-4, 0)), int(chance.integers(1, 9))
        optimizer = str(chance.choice(["adam", "sgd", "lion"]))
        accuracy = 0.9 - 0.06 * (math.log10(lr) + 2) ** 2 + 0.012 * depth + 0.06 * (optimizer == "adam")
        parameters = {
            "lr": lr,
            "depth": depth,
            "optimizer": optimizer,
            "dropout": chance.random(),
            "path": f"/runs/{i}",
            "seed": i,
        }
        metrics = {"accuracy": float(accuracy + chance.normal(0, 0.01)), "flat": 1}
        found.append(run(f"r{i}", parameters=parameters, metrics=metrics))
    return found


def test_importance_finds_what_the_metric_went_with():
    found = compare(sweep(120))
    assert found.metric == "accuracy"
    told = by_key(found.importance)
    assert found.importance["key"][0].as_py() == "lr"
    assert told["lr"]["shape"] == "mixed"
    assert (told["depth"]["shape"], told["optimizer"]["shape"]) == ("rising", "groups")
    assert all(told[key]["p_corrected"] <= 0.05 for key in ("lr", "depth", "optimizer"))
    assert all(told[key]["p_corrected"] > 0.05 for key in ("dropout", "seed"))
    assert told["path"]["strength"] is None
    assert told["path"]["note"] == "120 values in 120 runs: it tells them apart, and explains none."
    assert NOTE in found.notes
    assert "correlational" in NOTE


def test_importance_is_that_of_spearman_and_of_kruskal_and_wallis():
    x = [3, 1, 4, 15, 9, 2, 6, 5, 35, 8]
    y = [2.7, 1.8, 2.8, 1.8, 4.5, 9.0, 4.6, 5.2, 3.5, 3.1]
    groups = ["a", "b", "a", "a", "c", "c", "b", "b", "c", "c"]
    runs = [
        run(f"r{i}", parameters={"x": x[i], "group": groups[i]}, metrics={"y": y[i]}) for i in range(len(x))
    ]
    told = by_key(compare(runs).importance)
    rho = np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]
    assert told["x"]["strength"] == pytest.approx(max(0, 1 - (1 - rho**2) * 9 / 8))
    h, p = stats.kruskal(*([y[i] for i in range(10) if groups[i] == name] for name in "abc"))
    assert told["group"]["strength"] == pytest.approx(1 - (1 - h / 9) * 9 / 7)
    assert told["group"]["p"] == pytest.approx(p, abs=0.03)  # its own is that of large samples


def test_importance_does_not_depend_on_the_order_or_the_scale():
    runs = sweep(40)
    larger = [{**each, "metrics": {"accuracy": 1e6 * each["metrics"]["accuracy"]}} for each in runs]
    assert compare(runs).importance.equals(compare(larger).importance)


def test_importance_by_chance_alone_is_rarely_shown():
    """At the level of 5 %, of 300 parameters that mean nothing, corrected for none of them."""
    chance = np.random.default_rng(1)
    runs = [
        run(
            f"r{i}", metrics={"x": chance.random()}, parameters={f"p{k}": chance.random() for k in range(300)}
        )
        for i in range(40)
    ]
    told = compare(runs).importance.to_pylist()
    assert 5 <= sum(row["p"] <= 0.05 for row in told) <= 28
    assert min(row["p_corrected"] for row in told) > 0.05


def test_few_runs_and_gaps_have_a_note_in_place_of_a_strength():
    runs = [run(f"r{i}", metrics={"x": i}, parameters={"lr": i} if i < 4 else {"k": 1}) for i in range(9)]
    told = by_key(compare(runs).importance)
    assert told["lr"]["note"] == "4 runs with it and the metric: 5 are needed."
    assert told["k"]["note"] == "The same in all runs that have the metric."


def test_a_run_with_ten_thousand_metrics_is_compared():
    runs = [*sweep(99), run("wide", metrics={f"m/{i} ü": float(i) for i in range(10_000)})]
    found = compare(runs)
    assert found.metrics.num_rows == 10_002
    assert "9,502 more metrics are left out" in page(found, None, "", "")


class Elements(HTMLParser):
    """Tags and text of a page, as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


EVIL = """<img src=x onerror="alert(1)">'</script><script>alert(2)</script>&amp;`"""


def test_all_that_comes_from_runs_is_text():
    runs = [
        run(
            f"{EVIL}{i}",
            name=f"{EVIL}{i}",
            dataset=EVIL,
            parameters={EVIL: f"{EVIL}{i}", "same": EVIL},
            metrics={EVIL: i},
            tags={EVIL: EVIL},
            created_at=datetime(2026, 3, 1, tzinfo=UTC),
        )
        for i in range(6)
    ]
    points = pa.table({"run_id": [f"{EVIL}0"] * 2, "key": [EVIL] * 2, "x": [0, 1], "value": [1.0, None]})
    text = page(compare(runs), Curves(points), "a { color: red }", "let a = 1;", title=EVIL)
    read = Elements(text)
    assert {tag for tag, _ in read.tags} & {"img"} == set()
    assert [tag for tag, _ in read.tags].count("script") == 2
    assert [name for _, attributes in read.tags for name in attributes if name.startswith("on")] == []
    data = json.loads(read.scripts[0])
    assert data["runs"][0]["label"] == f"{EVIL}0"
    assert data["curves"] == [{"key": EVIL, "run": 0, "x": [0, 1], "y": [1.0, None]}]


def test_the_page_asks_no_network():
    text = page(compare(sweep(6)), None, "", "")
    assert re.findall(r"(?:https?:)?//\w", text) == []
    assert "default-src 'none'" in text.replace("&#x27;", "'")
    linked = [attributes for tag, attributes in Elements(text).tags if tag == "link"]
    assert [attributes["href"] for attributes in linked] == ["data:,"]
