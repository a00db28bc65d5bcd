"""The demo's plan, manifest and landing files: what needs no training."""

import csv
import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from ml_assets.demo import Day, DemoReport, Manifest, Plan, landing_files, make_demo
from ml_assets.demo.manifest import last_day
from ml_assets.demo.plan import MISTAKES, RETRAINED
from ml_assets.demo.uninvited import why_uninvited
from ml_assets.errors import Refusal
from ml_assets.settings import Settings

NOON = datetime(2026, 11, 10, 12, 0, 0, 7, tzinfo=UTC)
PREDICTION = {
    "prediction_id": "p",
    "model_name": "m",
    "input_features": {"width": 1.5, "größe": 2},
    "prediction": 'a "b", c',
    "created_at": NOON,
}


@pytest.fixture
def trials():
    plan = Plan()
    return [trial for day in range(1, plan.days + 1) for trial in plan.trials(day)]


def test_the_plan_is_as_large_as_it_has_to_be(trials):
    swept = [trial for trial in trials if trial.role == "trial"]
    assert len(trials) == Plan().trial_count >= 150
    assert {trial.dataset for trial in swept} == set(RETRAINED) == {"iris", "wine", "breast_cancer", "digits"}
    assert len({trial.family for trial in swept}) == 8
    for dataset, family in {(trial.dataset, trial.family) for trial in swept}:
        those = [trial for trial in swept if (trial.dataset, trial.family) == (dataset, family)]
        assert {trial.seed for trial in those} == {0, 1, 2}
        assert len({str(trial.parameters) for trial in those}) == 2


def test_trials_have_names_of_their_own_and_start_on_their_day(trials):
    assert len({trial.key for trial in trials}) == len(trials)
    assert all(timedelta(0) <= trial.start < timedelta(days=1) for trial in trials)


def test_every_day_retrains_every_model_last(trials):
    plan = Plan()
    for day in range(1, plan.days + 1):
        roles = [trial.role for trial in plan.trials(day)]
        assert roles.count("retraining") == 8
        starts = [trial.start for trial in plan.trials(day)]
        assert starts == sorted(starts)


def test_every_mistake_is_made(trials):
    assert sum(trial.role == "mistake" for trial in trials) == len(MISTAKES)


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    day = Day({"runs": 3, "failed": 1}, {"training": 0.5}, ["runs/demo.csv"])
    Manifest(date(2026, 11, 22), 2, {1: day}).write(tmp_path)
    manifest = Manifest.read(tmp_path)
    assert manifest == Manifest(date(2026, 11, 22), 2, {1: day})
    assert manifest and (manifest.start, manifest.date_of(2), manifest.complete) == (
        date(2026, 11, 21),
        date(2026, 11, 22),
        False,
    )


@pytest.mark.parametrize(
    ("chosen", "last"), [(None, date(2026, 2, 28)), (date(2026, 1, 5), date(2026, 1, 5))]
)
def test_the_fortnight_ends_the_day_before_it_is_made(tmp_path, chosen, last):
    assert last_day(Settings(home=tmp_path, demo_end=chosen), today=date(2026, 3, 1)) == last


def test_a_manifest_without_former_files_is_read(tmp_path):
    path = Manifest.path(tmp_path)
    path.parent.mkdir()
    path.write_text('{"end": "2026-11-22", "days": 1, "finished": {}}')
    assert Manifest.read(tmp_path) == Manifest(date(2026, 11, 22), 1)


def test_a_day_writes_the_next_days_events_unless_it_is_the_last():
    files = landing_files.files_of(2, date(2026, 11, 9), days=3)
    assert files == [
        "runs/demo-2026-11-09.parquet",
        "metrics/demo-2026-11-09.jsonl",
        "performance/demo-2026-11-10.csv",
        "predictions/demo-2026-11-10.parquet",
        "documents/demo-2026-11-09.jsonl",
        "judgments/demo-2026-11-09.csv",
    ]
    last = landing_files.files_of(3, date(2026, 11, 10), days=3)
    assert [file.split("/")[0] for file in last] == ["runs", "metrics", "documents", "judgments"]


def test_a_report_adds_the_days_up():
    days = {n: Day({"runs": n, "failed": 1}, {"training": 0.5}, []) for n in (1, 2)}
    report = DemoReport.of(Manifest(date(2026, 11, 22), 2, days), trained=True)
    assert (report.runs, report.failed, report.seconds) == (3, 2, {"training": 1.0})


@pytest.mark.parametrize("text", ["", "[]", '{"end": "tomorrow"}', '{"end": "2026-11-22", "days": 1}'])
def test_a_damaged_manifest_is_said(tmp_path, text):
    path = Manifest.path(tmp_path)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(
        Refusal, match=r"manifest\.json cannot be read .*delete it and .* to make the demo anew"
    ):
        make_demo(Settings(home=tmp_path))


def test_a_complete_demo_is_left_alone_without_importing_what_trains_it(tmp_path):
    Manifest(date(2026, 11, 22), 1, {1: Day({"runs": 7}, {}, [])}).write(tmp_path)
    program = (
        "import sys; from pathlib import Path; from ml_assets.demo import make_demo;"
        "from ml_assets.settings import Settings; report = make_demo(Settings(home=Path(sys.argv[1])));"
        "print(report.runs, report.trained, sorted({'mlflow', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "7 False []\n"


def test_jsonl_holds_objects(tmp_path):
    assert landing_files.write(tmp_path, "predictions", "x", [PREDICTION], "jsonl") == "predictions/x.jsonl"
    (row,) = map(json.loads, (tmp_path / "predictions/x.jsonl").read_text().splitlines())
    assert row["input_features"] == {"width": 1.5, "größe": 2}
    assert (row["prediction"], row["confidence"]) == ('a "b", c', None)
    assert row["created_at"] == "2026-11-10T12:00:00.000007Z"


def test_csv_holds_json_as_text(tmp_path):
    landing_files.write(tmp_path, "predictions", "x", [PREDICTION], "csv")
    with (tmp_path / "predictions/x.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert json.loads(row["input_features"]) == {"width": 1.5, "größe": 2}
    assert (json.loads(row["prediction"]), row["confidence"]) == ('a "b", c', "")
    assert row["created_at"] == "2026-11-10T12:00:00.000007Z"


def test_parquet_holds_types_and_json_as_text(tmp_path):
    landing_files.write(tmp_path, "predictions", "x", [PREDICTION], "parquet")
    (row,) = pq.read_table(tmp_path / "predictions/x.parquet").to_pylist()
    assert json.loads(row["input_features"]) == {"width": 1.5, "größe": 2}
    assert (json.loads(row["prediction"]), row["confidence"], row["created_at"]) == ('a "b", c', None, NOON)


@pytest.mark.parametrize("form", landing_files.FORMATS)
def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, form):
    landing_files.write(tmp_path, "predictions", "x", [PREDICTION], form)
    before = (tmp_path / f"predictions/x.{form}").read_bytes()
    with pytest.raises(TypeError):
        landing_files.write(tmp_path, "predictions", "x", [{**PREDICTION, "input_features": {1j}}], form)
    assert (tmp_path / f"predictions/x.{form}").read_bytes() == before


def test_every_stream_comes_in_every_format():
    for stream in ("runs", "metrics", "performance", "predictions", "documents", "judgments"):
        assert {landing_files.format_of(day, stream) for day in (1, 2, 3)} == set(landing_files.FORMATS)


def test_the_demo_is_made_unasked_where_nothing_else_is(tmp_path):
    """In a new home, and in one whose demo was killed at any time."""
    settings = Settings(home=tmp_path)
    assert why_uninvited(settings) is None
    Manifest.folder(tmp_path).mkdir()
    (tmp_path / "services/postgres/data").mkdir(parents=True)
    assert why_uninvited(settings) is None
    manifest = Manifest(date(2026, 11, 22), 2, {1: Day({}, {}, ["runs/old.csv"])}, ["runs/former.csv"])
    manifest.write(tmp_path)
    begun = landing_files.files_of(2, date(2026, 11, 22), 2)
    for name in ("runs/old.csv", "runs/former.csv", *begun[1:], f"{begun[0]}.partial", "runs/.hidden"):
        (tmp_path / "landing" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "landing" / name).touch()
    assert why_uninvited(settings) is None
    for theirs in (f"runs/{landing_files.name_of(date(2026, 11, 23), 'runs')}.csv", "runs/deep/mine.csv"):
        (tmp_path / "landing" / theirs).parent.mkdir(exist_ok=True)
        (tmp_path / "landing" / theirs).touch()
        assert why_uninvited(settings) == f"{tmp_path / 'landing' / theirs} is not the demo's"
        (tmp_path / "landing" / theirs).unlink()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"mlflow_url": "http://h:5000"}, "mlflow is set by URL"),
        ({"postgres_url": "postgresql://h/d"}, "postgres, duckdb are set by URL"),
        ({"sqlite_url": "sqlite:////srv/x.db"}, "sqlite is set by URL"),
        ({"lake_data": "s3://bucket/lake"}, "the files of the lake are set by URL"),
        ({"clickhouse_url": "chdb:///srv/x", "lake_data": "/srv/lake"}, None),
    ],
)
def test_no_demo_is_made_unasked_on_stores_of_others(tmp_path, given, why):
    assert why_uninvited(Settings(home=tmp_path, **given)) == why


def test_no_demo_is_made_unasked_in_a_home_in_use(tmp_path):
    (tmp_path / "services/postgres/data").mkdir(parents=True)
    assert why_uninvited(Settings(home=tmp_path)) == f"{tmp_path} was set up without it"
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow/mlflow.db").write_text("no database, whatever its name is")
    with pytest.raises(Refusal, match=r"mlflow\.db, the home's MLflow, cannot be read"):
        why_uninvited(Settings(home=tmp_path))


def test_what_is_judged_is_how_the_documents_are_built():
    from ml_assets.demo.documents import library_documents
    from ml_assets.demo.judgments import library_judgments

    at = datetime(2026, 3, 8, tzinfo=UTC)
    documents = {row["document_id"]: row for row in library_documents(at)}
    judged = list(library_judgments(at))
    assert {row["set_name"] for row in judged} == {"titles", "headings", "see-also"}
    assert len({(row["set_name"], row["query_id"], row["document_id"]) for row in judged}) == len(judged)
    for row in judged:
        document = documents[row["document_id"]]
        if row["set_name"] == "titles":
            assert document["title"] == row["query"]
        if row["set_name"] == "headings":
            assert row["query"].split()[0] in document["text"]
    answers = {(row["query"], row["document_id"]): row["relevance"] for row in judged}
    # Gradient boosting links to the forest, whose own document is the very answer to its first line.
    assert answers["A random forest classifier.", "estimator:GradientBoostingClassifier"] == 1
    assert answers["A random forest classifier.", "estimator:RandomForestClassifier"] == 3
