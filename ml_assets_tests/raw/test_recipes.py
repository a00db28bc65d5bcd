"""The recipes of docs/sources.md, each run as it stands there on files as its tool writes them."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.intake.files import take_in_files
from ml_assets.intake.sources import list_source, read_source
from ml_assets.settings import PROJECT_ROOT

PAGE = (PROJECT_ROOT / "docs" / "sources.md").read_text()
RECIPES = re.findall(r"^```sql\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)

At = datetime(2026, 5, 1, 10, tzinfo=UTC)


def parquet(**columns: Any) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table(columns), path)


def sqlite(script: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            database.executescript(script)

    return write


def trainer_state(*entries: dict[str, float]) -> str:
    return json.dumps({"epoch": 2.0, "best_metric": None, "log_history": entries}, indent=2)


FIRST = ({"epoch": 1.0, "loss": 0.5, "step": 10}, {"eval_loss": float("nan"), "step": 10})

NEPTUNE = pa.schema(
    {
        "project_id": pa.string(),
        "run_id": pa.string(),
        "attribute_path": pa.string(),
        "attribute_type": pa.string(),
        "step": pa.decimal128(18, 6),
        "timestamp": pa.timestamp("ms", "UTC"),
        "int_value": pa.int64(),
        "float_value": pa.float64(),
        "string_value": pa.string(),
        "bool_value": pa.bool_(),
        "datetime_value": pa.timestamp("ms", "UTC"),
        "string_set_value": pa.list_(pa.string()),
        "file_value": pa.struct({"path": pa.string()}),
        "histogram_value": pa.struct(
            {"type": pa.string(), "edges": pa.list_(pa.float64()), "values": pa.list_(pa.float64())}
        ),
    }
)


def neptune(path: Path) -> None:
    def attribute(name: str, kind: str, **value: Any) -> dict[str, Any]:
        return {
            "project_id": "w/p",
            "run_id": "RUN-1",
            "attribute_path": name,
            "attribute_type": kind,
            **value,
        }

    rows = [
        attribute("sys/creation_time", "datetime", datetime_value=At),
        attribute("sys/name", "string", string_value="calm"),
        attribute("sys/failed", "bool", bool_value=False),
        attribute("config/lr", "float", float_value=0.1),
        attribute("config/layers", "int", int_value=3),
        attribute("train/loss", "float_series", float_value=0.5, step=Decimal(1), timestamp=At),
        attribute("train/loss", "float_series", float_value=0.4, step=Decimal("1.5"), timestamp=At),
    ]
    pq.write_table(pa.Table.from_pylist(rows, NEPTUNE), path)


COLUMNS = {
    "metrics": ("run_id", "key", "step", "value", "timestamp", "extras"),
    "runs": ("run_id", "experiment", "name", "status", "parameters", "metrics", "tags", "created_at"),
}


def point(
    run_id: str, key: str, step: int, value: float, timestamp: datetime = At, extras: str | None = None
):
    return (run_id, key, step, value, timestamp, extras)


# By folder or glob: files by path below the folder; rows that get in; parts of the reasons why others do not.
CASES: dict[str, tuple[dict[str, str | Callable[[Path], None]], list[Any], list[str]]] = {
    "wide": (
        {
            "a.csv": "run_id,step,time,loss,top-1\nw,1,2026-05-01 10:00:00,0.5,\nw,2,2026-05-01 10:00:00,high,0.9\n"
        },
        [point("w", "loss", 1, 0.5), point("w", "top-1", 2, 0.9)],
        ["value is 'high', not a number"],
    ),
    "folds": (
        {
            "a.json": json.dumps(
                {
                    "run": "007",
                    "finished": "2026-05-01T10:00:00Z",
                    "scores": {"fold_1": {"accuracy": 0.9}, "fold_2": {"accuracy": True}},
                }
            )
        },
        [point("007", "fold_1/accuracy", 0, 0.9)],
        ["value is 'true', not a number"],
    ),
    "by_run": (
        {f"run {n}/a.csv": "step,loss,time\n1,0.5,2026-05-01T10:00:00Z\n" for n in (1, 2)},
        [point(f"run {n}", "loss", 1, 0.5) for n in (1, 2)],
        [],
    ),
    "partitioned": (
        {
            f"run_id=0{n}/model=cats/part.parquet": parquet(
                key=["loss"], step=[1], value=[0.5], timestamp=[At]
            )
            for n in (1, 2)
        },
        [point(f"0{n}", "loss", 1, 0.5, extras='{"model":"cats"}') for n in (1, 2)],
        [],
    ),
    "trainer": (
        {
            "2026-05-01-bert/checkpoint-10/trainer_state.json": trainer_state(*FIRST),
            "2026-05-01-bert/checkpoint-20/trainer_state.json": trainer_state(
                *FIRST, {"loss": 0.25, "step": 20}
            ),
            "gpt/trainer_state.json": trainer_state({"loss": 0.5, "step": 1}),
        },
        [
            point("2026-05-01-bert", key, step, value, datetime(2026, 5, 1, 0, 0, step, tzinfo=UTC))
            for key, step, value in [
                ("epoch", 10, 1.0),
                ("eval_loss", 10, float("nan")),
                ("loss", 10, 0.5),
                ("loss", 20, 0.25),
            ]
        ],
        ["run_id is missing"],
    ),
    "wandb/*.csv": (
        {
            "runs.csv": '"Name","ID","State","Notes","Created","Runtime","lr"\n'
            '"calm-1","abc","finished","-","2026-05-01T10:00:00.000Z","12","0.10"\n'
            '"calm-2","def","pending","-","2026-05-01T10:00:00.000Z","",""\n'
        },
        [("abc", "wandb", "calm-1", "completed", None, None, '{"Runtime":"12","lr":"0.10"}', At)],
        ["status is 'pending'; write one of"],
    ),
    "wandb/*/*.parquet": (
        {
            "abc/0000.parquet": parquet(
                _step=[0, 1],
                _timestamp=[1777629600.0, 1777629600.0],
                _runtime=[1.0, 2.0],
                loss=[0.1 + 0.2, None],
                epoch=[1, 2],
            )
        },
        [point("abc", "epoch", 0, 1.0), point("abc", "epoch", 1, 2.0), point("abc", "loss", 0, 0.1 + 0.2)],
        [],
    ),
    "tensorboard": (
        {
            f"run-{run}-tag-loss.csv": "Wall time,Step,Value\n1777629600.0,0,59.3\n1777629600.0,1,NaN\n"
            for run in ("tb a", "tb b")
        },
        [point(run, "loss", *each) for run in ("tb a", "tb b") for each in ((0, 59.3), (1, float("nan")))],
        [],
    ),
    "neptune/*/*_part_0.parquet": (
        {"w_p/RUN-1_part_0.parquet": neptune},
        [("RUN-1", "w/p", "calm", "completed", '{"config/layers":3,"config/lr":0.1}', None, None, At)],
        [],
    ),
    "neptune/*/*.parquet": (
        {"w_p/RUN-1_part_0.parquet": neptune},
        [point("RUN-1", "train/loss", 1, 0.5)],
        ["step is '1.500000', not a whole number"],
    ),
    "trackio": (
        {
            "project.db": sqlite(
                """
                CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL,
                    timestamp TEXT NOT NULL, run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL,
                    log_id TEXT, space_id TEXT);
                INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES ('r', '2026-05-01T10:00:00+00:00',
                    'calm', 1, '{"loss": 0.5, "grad": "Infinity", "table": {"_type": "trackio.table"}}')
                """
            )
        },
        [point("r", "grad", 1, float("inf")), point("r", "loss", 1, 0.5)],
        [],
    ),
    "optuna": (
        {
            "study.db": sqlite(
                """
                CREATE TABLE studies (study_id INTEGER PRIMARY KEY, study_name VARCHAR(512) NOT NULL);
                CREATE TABLE trials (trial_id INTEGER PRIMARY KEY, number INTEGER, study_id INTEGER,
                    state VARCHAR(8) NOT NULL, datetime_start DATETIME, datetime_complete DATETIME);
                CREATE TABLE trial_params (param_id INTEGER PRIMARY KEY, trial_id INTEGER, param_name VARCHAR(512),
                    param_value FLOAT, distribution_json TEXT);
                CREATE TABLE trial_values (trial_value_id INTEGER PRIMARY KEY, trial_id INTEGER NOT NULL,
                    objective INTEGER NOT NULL, value FLOAT, value_type VARCHAR(7) NOT NULL);
                INSERT INTO studies VALUES (1, 'tune');
                INSERT INTO trials VALUES (1, 0, 1, 'COMPLETE', '2026-05-01 10:00:00.000000', '2026-05-01 10:05:00'),
                    (2, 1, 1, 'PRUNED', '2026-05-01 10:00:00.000000', NULL), (3, 2, 1, 'WAITING', NULL, NULL);
                INSERT INTO trial_params VALUES (1, 1, 'lr', 0.1, '{}'), (2, 2, 'lr', 0.2, '{}');
                INSERT INTO trial_values VALUES (1, 1, 0, 0.9, 'FINITE');
                """
            )
        },
        [
            ("optuna/tune/0", "tune", None, "completed", '{"lr":0.1}', '{"objective_0":0.9}', None, At),
            ("optuna/tune/1", "tune", None, "cancelled", '{"lr":0.2}', None, None, At),
        ],
        [],
    ),
}


def place(sql: str) -> str:
    """Where a recipe stands in `CASES`: by its glob, or by its folder."""
    (glob,) = re.findall(r"^-- glob: (.*)$", sql, re.MULTILINE)
    return glob if glob in CASES else glob.partition("/")[0]


def take_in(room, path: Path):
    """Take in the files of a recipe."""
    source = read_source(path)
    listing = list_source(source, room.folder / "landing")
    return take_in_files(source.stream, listing, room.lake, room.postgres, room.bounds, source)


@pytest.fixture(scope="module")
def taken_in(shared_room, tmp_path_factory):
    """How it went with each recipe, where it stands, and the rows of the raw tables."""
    folder = tmp_path_factory.mktemp("sources")
    paths, reports = {}, {}
    for number, recipe in enumerate(RECIPES):
        files, *_ = CASES[place(recipe)]
        for name, content in files.items():
            file = shared_room.folder / "landing" / place(recipe).partition("/")[0] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(file)
            else:
                file.write_text(content)
            shared_room.age(file)
        path = paths[place(recipe)] = folder / f"{number:02}.sql"
        path.write_text(recipe)
        reports[place(recipe)] = take_in(shared_room, path)
    return reports, paths, {stream: shared_room.raw(stream, *COLUMNS[stream]) for stream in COLUMNS}


def as_text(rows: list[Any]) -> list[list[str]]:
    """Rows that can be compared, NaN and zones by other names included."""
    return [[str(value) for value in row] for row in rows]


def test_every_recipe_is_run():
    assert [place(recipe) for recipe in RECIPES] == list(CASES)


@pytest.mark.parametrize("recipe", RECIPES, ids=place)
def test_a_recipe(taken_in, shared_room, recipe):
    reports, _, raw = taken_in
    files, rows, reasons = CASES[place(recipe)]
    (stream,) = re.findall(r"^-- stream: (.*)$", recipe, re.MULTILINE)
    report = reports[place(recipe)]
    assert (report.skipped, report.contents, report.rows_quarantined) == ({}, len(files), len(reasons))
    told = [(item_name.partition("/")[0], why) for item_name, _, why in shared_room.quarantine(stream)]
    for reason in reasons:
        assert [folder for folder, why in told if reason in why] == [place(recipe).partition("/")[0]]
    ids = {row[0] for row in rows}
    assert as_text([row for row in raw[stream] if row[0] in ids]) == as_text(rows)


def test_a_recipe_without_times_doubles_nothing_when_it_reads_again(taken_in, shared_room):
    _, paths, raw = taken_in
    path = paths["trainer"]
    for state in (shared_room.folder / "landing" / "trainer").rglob("*.json"):
        shared_room.age(state)
    path.write_text(path.read_text() + "-- changed\n")
    assert take_in(shared_room, path).contents == 3
    assert as_text(shared_room.raw("metrics", *COLUMNS["metrics"])) == as_text(raw["metrics"])
