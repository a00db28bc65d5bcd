"""`Stack.experiments.compare` and `ml-assets runs compare` on real stores."""

import csv
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_assets.errors import Refusal
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stack import Stack

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNS = [
    {
        "id": f"run-{i}",
        "name": f"trial {i}",
        "model_name": "forest",
        "dataset": "digits",
        "parameters": {"depth": i, "trees": 100},
        "metrics": {"accuracy": 0.9 + i / 100, "loss": "NaN" if i == 2 else 0.5 - i / 10},
        "created_at": NOON + timedelta(hours=i),
    }
    for i in range(6)
]
IDS = [str(run["id"]) for run in RUNS]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    (folder / "landing").mkdir(parents=True)
    return folder


@pytest.fixture
def settings(home: Path, postgres: PostgresResource, lake: DuckLakeResource) -> Settings:
    """Six runs in PostgreSQL."""
    for run in RUNS:
        postgres.create_experiment("sweep", **run)
    return Settings(home=home, postgres_url=postgres.url, lake_url=lake.catalog_url, lake_data=lake.data_path)


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    given = {
        "POSTGRES_URL": settings.postgres_url,
        "LAKE_URL": settings.lake_url,
        "LAKE_DATA": settings.lake_data,
    }
    return {f"ML_ASSETS_{name}": str(value) for name, value in given.items()}


@contextmanager
def points(lake: DuckLakeResource, select: str) -> Iterator[None]:
    """A history of metrics: SELECT run_id, key, step, value."""
    with lake.get_connection(write=True) as connection:
        connection.execute(
            f"CREATE TABLE lake.raw.raw_metrics AS SELECT *, now() AS timestamp FROM ({select})"
        )
    yield


def test_runs_are_compared(settings: Settings) -> None:
    compared = Stack(settings).experiments.compare([*IDS, "run-0"], baseline="run-0")
    assert compared.runs["run_id"].to_pylist() == IDS
    [depth] = [row for row in compared.parameters.to_pylist() if row["differs"]]
    assert (depth["key"], depth["values"]) == ("depth", [str(i) for i in range(6)])
    accuracy, loss = compared.metrics.to_pylist()
    assert (accuracy["best_run"], accuracy["deltas"][5]) == ("run-5", pytest.approx(0.05))
    assert (loss["best_run"], loss["not_finite"]) == ("run-5", 1)
    [told] = compared.importance.to_pylist()
    assert (told["key"], told["shape"], told["strength"]) == ("depth", "rising", 1)


def test_rows_of_a_search_name_runs_too(settings: Settings) -> None:
    import pyarrow as pa

    experiments = Stack(settings).experiments
    rows = [experiments.get("run-1"), experiments.get("run-2")]
    assert experiments.compare(rows).runs["run_id"].to_pylist() == ["run-1", "run-2"]
    table = pa.table({"run_id": ["run-2", "run-1"]})
    assert experiments.compare(table).runs["run_id"].to_pylist() == ["run-2", "run-1"]


@pytest.mark.parametrize(
    ("runs", "more", "said"),
    [
        ([], {}, "There is no run to compare"),
        (["run-0", "run_1"], {}, "There is no run 'run_1': 'ml-assets runs search' finds them"),
        (["run-0", "a\0"], {}, "names no run"),
        ([f"r{i}" for i in range(1_001)], {}, "up to 1,000 runs, and these are 1,001"),
        (IDS, {"metric": "acc"}, "metric 'acc': did you mean 'accuracy'?"),
        (IDS, {"baseline": "run-9"}, "baseline 'run-9' is none of the runs"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings: Settings, runs: Any, more: Any, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        Stack(settings).experiments.compare(runs, **more)
    assert said in str(refused.value)


def test_curves_keep_spikes_and_gaps_and_are_those_of_the_best_runs(
    settings: Settings, lake: DuckLakeResource
) -> None:
    curves = (
        "SELECT 'run-' || r AS run_id, key, s AS step, CASE WHEN r = 5 AND s = 777 THEN 99.0 "
        "WHEN r = 5 AND s = 5000 THEN 'nan'::DOUBLE ELSE s / 10000.0 END AS value "
        "FROM range(6) AS runs(r), range(10000) AS steps(s), (VALUES ('accuracy'), ('loss')) AS keys(key)"
    )
    many = "SELECT 'run-1', 'k' || k, s, 1.0 FROM range(200) AS keys(k), range(2) AS steps(s)"
    single = "SELECT 'run-0', 'once', 0, 1.0"
    with points(lake, f"{curves} UNION ALL {many} UNION ALL {single}"):
        found = Stack(settings).experiments.compare(IDS, metric="accuracy").curves
    rows = found.points.to_pylist()
    drawn = list(dict.fromkeys((row["key"], row["run_id"]) for row in rows))
    assert drawn[:6] == [("accuracy", f"run-{i}") for i in (5, 4, 3, 2, 1, 0)]
    assert len({key for key, _ in drawn}) == 8
    assert len(drawn) + found.left_out == 12 + 200
    best = [row for row in rows if (row["key"], row["run_id"]) == ("accuracy", "run-5")]
    assert 250 <= len(best) <= 301
    assert [row["x"] for row in best] == sorted(row["x"] for row in best)
    assert max(row["value"] for row in best if row["value"] is not None) == 99.0
    assert [row["x"] for row in best if row["value"] is None] == [5000]
    assert (best[0]["x"], best[-1]["x"]) == (0, 9999)


def test_without_a_history_there_are_no_curves(settings: Settings) -> None:
    compared = Stack(settings).experiments.compare(IDS)
    assert (compared.curves.points.num_rows, compared.curves.left_out) == (0, 0)
    assert "<h2>Learning curves" not in compared.to_html()


def test_the_page_takes_the_place_of_the_former_one_or_leaves_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = Stack(settings).experiments.compare(IDS)
    path = tmp_path / "page.html"
    assert compared.write_html(path, title="First") == path
    assert "<title>First</title>" in path.read_text()
    with monkeypatch.context() as broken, pytest.raises(OSError, match="full"):
        broken.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        compared.write_html(path, title="Second")
    assert "<title>First</title>" in path.read_text()
    assert [file.name for file in tmp_path.glob("*page*")] == ["page.html"]
    for other, said in (
        (tmp_path / "page.pdf", "ends in .html"),
        (tmp_path / "no" / "page.html", "no folder"),
    ):
        with pytest.raises(Refusal, match=said):
            compared.write_html(other)


def test_the_command_prints_tables_json_and_csv(
    cli: Any, home: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"

    def runs(*arguments: str) -> Any:
        return cli(home, "runs", "compare", *arguments, COLUMNS="200", **environment)

    done = runs(*IDS, "--html", str(path))
    assert done.returncode == 0, done.stderr
    for word in ("depth", "accuracy", "What accuracy went with", "correlational", str(path)):
        assert word in done.stdout
    assert "Comparison of 6 runs" in path.read_text()

    rows = json.loads(runs("run-0", "run-1", "--baseline", "run-0", "--json").stdout)
    assert [row["run_id"] for row in rows] == ["run-0", "run-1"]
    assert {"experiment", "model_name", "status", "metrics", "parameters"} <= set(rows[1])
    assert rows[1]["metrics"] == {"accuracy": 0.91, "loss": 0.4}
    assert math.isclose(rows[1]["deltas"]["accuracy"], 0.01)
    assert rows[1]["best_in"] == ["accuracy", "loss"]

    [first, _] = csv.DictReader(io.StringIO(runs("run-0", "run-1", "--csv").stdout))
    assert (first["run_id"], first["parameters.depth"], first["metrics.accuracy"]) == ("run-0", "0", "0.9")
    told = json.loads(runs(*IDS, "--json", "--part", "importance").stdout)
    assert [row["key"] for row in told] == ["depth"]

    found = json.loads(runs("--filter", "params.depth >= 4", "--json").stdout)
    assert sorted(row["run_id"] for row in found) == ["run-4", "run-5"]
    for arguments, said in (
        ((), "There is no run to compare"),
        (("--filter", "params.depth > 9"), "The filter finds no run"),
    ):
        wrong = runs(*arguments)
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert wrong.stderr.startswith(said)

    wrong = runs("run-0", "nobody")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("There is no run 'nobody'")
