"""Curves and the watch on runs, over real stores."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from ml_assets.contracts import tables
from ml_assets.defs.experiments.checks import runs_healthy
from ml_assets.errors import Refusal
from ml_assets.operations import metric_files
from ml_assets.resources import store_resources
from ml_assets.stack import Stack
from ml_assets.stores.duckdb.write import make_tables

BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


@pytest.fixture
def stack(settings):
    """Three runs of two models; one of them diverged, and another logged a point three days late."""
    settings.landing.mkdir(parents=True)
    made = Stack(settings)
    for run_id, model in (("r1", "cats"), ("r2", "cats"), ("r3", "dogs")):
        made.experiments.create(
            "mine", id=run_id, model_name=model, parameters={"lr": 0.1}, created_at=BEGAN, status="running"
        )
    lake = store_resources(settings)["lake"]
    make_tables(lake, [tables(settings)["duckdb/raw_metrics"]])
    with lake.get_connection(write=True) as connection:
        connection.execute(
            "INSERT INTO raw.raw_metrics (run_id, key, step, value, timestamp) SELECT run_id, 'loss', step, "
            "CASE WHEN run_id = 'r3' AND step > 2500 THEN 'NaN' WHEN run_id = 'r2' AND step = 1234 THEN 77 "
            "ELSE 1 / (step + 1) END, $began + step * INTERVAL 1 SECOND "
            "FROM (VALUES ('r1'), ('r2'), ('r3')) AS runs(run_id), range(3000) AS steps(step)",
            {"began": BEGAN},
        )
        connection.execute(
            "INSERT INTO raw.raw_metrics (run_id, key, step, value, timestamp) VALUES ('r1', 'loss', 3000, 0.5, $late)",
            {"late": BEGAN + timedelta(days=3)},
        )
    return made


def test_curves_of_runs(stack, cli, environment):
    found = stack.experiments.curves(["r2", "r1"], ["loss"], points=50)
    rows = found.to_pylist()
    assert found.column_names == ["run_id", "key", "x", "value", "smoothed"]
    assert len(rows) < 2 * 4 * 50
    assert [row["run_id"] for row in rows][:: len(rows) - 1] == ["r2", "r1"]
    assert [row["x"] for row in rows if row["value"] == 77] == [1234.0]
    # A metric may come days after its run.
    assert (rows[-1]["x"], rows[-1]["value"]) == (3000.0, 0.5)

    grouped = stack.experiments.curves(["r1", "r2", "r3"], ["loss"], group_by="params.lr", points=50)
    means = [row for row in grouped.to_pylist() if row["run_id"] is None]
    assert {row["group"] for row in means} == {"0.1"}
    assert (means[0]["n"], means[-1]["n"]) == (3, 2)

    for wrong, told in [
        ({"run_ids": ["r1", "r9"], "keys": ["loss"]}, "There is no run 'r9'"),
        ({"run_ids": ["r1"], "keys": ["los"]}, "None of these runs has logged 'los': they have 'loss'."),
        ({"run_ids": ["r1"], "keys": ["loss"], "x": "metric:epoch"}, "logged 'epoch'"),
        ({"run_ids": ["r1"], "keys": ["loss"], "x": "steps"}, "x cannot be 'steps'"),
        ({"run_ids": ["r1"], "keys": ["loss"], "smoothing": 1.0}, "smoothing cannot be 1"),
        ({"run_ids": ["r1"], "keys": ["loss"], "points": 1}, "points cannot be 1"),
        ({"run_ids": ["r1"], "keys": ["loss"], "group_by": "colour"}, "grouped by 'colour'"),
        ({"run_ids": [], "keys": ["loss"]}, "name at least one run"),
    ]:
        with pytest.raises(Refusal, match=told):
            stack.experiments.curves(**wrong)

    home = stack.home
    shown = cli(home, "runs", "curves", "r2", "r3", "--key", "loss", **environment)
    assert shown.returncode == 0, shown.stderr
    assert "r2  loss  last 0.0003333  min 0.0003333  max 77  x 0 to 2999" in shown.stdout
    assert "holds nan (✗)" in shown.stdout
    answer = cli(home, "runs", "curves", "r1", "--key", "loss", "--points", "20", "--json", **environment)
    assert json.loads(answer.stdout)[-1] == {
        "run_id": "r1", "key": "loss", "x": 3000.0, "value": 0.5, "smoothed": 0.5
    }  # fmt: skip


def test_each_episode_is_told_once(stack, cli, environment):
    def ask(*more):
        done = cli(stack.home, "runs", "check", "--json", *more, **environment)
        assert done.stderr == ""
        return done.returncode, [(row["run_id"], row["kind"], row["new"]) for row in json.loads(done.stdout)]

    # The last point of r1 took three days.
    assert ask() == (1, [("r1", "slow", True), ("r3", "nan", True)])
    assert ask() == (0, [])
    assert ask("--all") == (0, [("r1", "slow", False), ("r3", "nan", False)])
    # Another reader has not been told.
    assert all(stack.experiments.check()["new"].to_pylist())
    assert not any(stack.experiments.check()["new"].to_pylist())
    told = cli(stack.home, "runs", "check", **environment)
    assert (told.returncode, told.stdout) == (0, "Findings: 2 known.\n")

    lake = store_resources(stack.settings)["lake"]
    with lake.get_connection(write=True) as connection:
        connection.execute(
            "INSERT INTO raw.raw_metrics (run_id, key, step, value, timestamp) VALUES ('r3', 'loss', 3000, 0.5, $at)",
            {"at": BEGAN + timedelta(hours=1)},
        )
    assert ask("--all") == (0, [("r1", "slow", False)])
    stack.experiments.complete("r3", {"accuracy": 0.5}, status="failed")
    stack.experiments.complete("r1", {"f1": "NaN"})
    assert ask() == (1, [("r1", "nan", True)])
    with store_resources(stack.settings)["postgres"].connect() as connection:
        rows = connection.execute(
            "SELECT run_id, kind, since, closed_at IS NULL, told FROM ml_run_findings ORDER BY opened_at, run_id"
        ).fetchall()
    assert rows == [
        ("r1", "slow", BEGAN + timedelta(seconds=2250), False, ["cli", "api"]),
        ("r3", "nan", BEGAN + timedelta(seconds=2501), False, ["cli", "api"]),
        ("r1", "nan", BEGAN, True, ["cli"]),
    ]


def test_the_check_warns_of_what_is_new(stack):
    def checked() -> dg.AssetCheckEvaluation:
        stores = store_resources(stack.settings)
        defs = dg.Definitions(
            asset_checks=[runs_healthy(stack.settings)],
            jobs=[dg.define_asset_job("checks", selection=dg.AssetSelection.all_asset_checks())],
            resources={name: stores[name] for name in ("lake", "postgres")},
        )
        with dg.DagsterInstance.ephemeral() as instance:
            done = defs.resolve_job_def("checks").execute_in_process(instance=instance)
        return done.get_asset_check_evaluations()[0]

    found = checked()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description is not None
    assert found.description.startswith("Findings: 2 new. r1: ")
    assert found.description.endswith("r3: loss is NaN.")
    found = checked()
    assert (found.passed, found.description) == (True, "Findings: 2 known.")
    shown = found.metadata["findings"]
    assert isinstance(shown, dg.TableMetadataValue)
    assert len(shown.records) == 2


def test_two_who_look_at_once_open_one_episode(stack):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: stack.experiments.check("both").to_pylist(), range(4)))
    assert [[row["kind"] for row in rows] for rows in found] == [["slow", "nan"]] * 4
    assert sorted(row["new"] for rows in found for row in rows) == [False] * 6 + [True] * 2


def test_files_without_points_of_the_runs_are_left_out(stack):
    stores = store_resources(stack.settings)
    lake, postgres = stores["lake"], stores["postgres"]

    def write(sql: str, **values) -> None:
        with lake.get_connection(write=True) as connection:
            connection.execute(sql, values)

    def files(*run_ids: str) -> set[str]:
        """The files that are read, and they hold all points of the runs."""
        with lake.get_connection() as connection:
            connection.execute("BEGIN")
            held = connection.execute(
                "SELECT DISTINCT filename FROM raw.raw_metrics WHERE run_id IN (SELECT unnest($1))", [run_ids]
            ).fetchall()
            only = metric_files.condition(connection, postgres, run_ids)
            read = connection.execute(
                f"SELECT DISTINCT filename FROM raw.raw_metrics WHERE {only}"
            ).fetchall()
        assert set(held) <= set(read)
        return {path for (path,) in read}

    late = files("r1") - files("r2")
    assert len(late) == 1  # of the day of the late point
    assert files("no run") == set()
    # A file that is new, whatever its day; one that was rewritten; rows that were deleted.
    insert = "INSERT INTO raw.raw_metrics (run_id, key, step, value, timestamp) VALUES ('r2', 'loss', 9000, 1, $at)"
    write(insert, at=BEGAN - timedelta(days=400))
    assert len(files("r2") - files("r1")) == 1
    write("UPDATE raw.raw_metrics SET value = 7 WHERE step = 3000")
    assert stack.experiments.curves(["r1"], ["loss"]).to_pylist()[-1]["value"] == 7
    write("DELETE FROM raw.raw_metrics WHERE run_id = 'r2'")
    assert stack.experiments.curves("r2", "loss").num_rows == 0
    # Files that are no more are forgotten with the next that is noted.
    write(insert.replace("'r2'", "'r3'"), at=BEGAN - timedelta(days=401))
    assert len(files("r3") - files("r1")) == 1
    with postgres.connect() as connection:
        noted = connection.execute("SELECT path FROM ledger.metric_files").fetchall()
    assert {path for (path,) in noted} == files("r1", "r3")
