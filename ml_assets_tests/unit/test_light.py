"""The light registry on its real SQLite file: recording, files by content, several writers at once."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import ml_assets
from ml_assets.contracts.experiments import EXPERIMENT_COLUMNS
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.maintenance import run as run_maintenance
from ml_assets.operations.light import LightStack
from ml_assets.operations.light.upkeep import LightFiles
from ml_assets.settings import Settings
from ml_assets.tables.pause import paused
from ml_assets.tables.store import Retention


@pytest.fixture
def light(tmp_path: Path) -> LightStack:
    return ml_assets.connect(tmp_path / "home", light=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path


def contents(light: LightStack) -> list[str]:
    return sorted(light.artifacts.content.all())


def test_a_run_from_its_creation_to_its_end(light):
    begun = datetime.now(UTC)
    run = light.experiments.create("cats", model_name="m", parameters={"lr": 0.1}, tags={"team": "blue"})
    light.experiments.update(run, status="running", parameters={"depth": 3}, metrics={"loss": 2.0})
    light.experiments.complete(run, {"accuracy": 0.9})
    found = light.experiments.get(run)
    assert found["parameters"] == {"depth": 3, "lr": 0.1}
    assert found["metrics"] == {"accuracy": 0.9, "loss": 2.0}
    assert (found["run_id"], found["experiment"], found["status"]) == (run, "cats", "completed")
    assert begun <= found["created_at"] <= found["completed_at"] <= datetime.now(UTC)
    with pytest.raises(ValueError, match=r"is completed since .* can no longer be changed"):
        light.experiments.update(run, notes="late")


def test_its_columns_are_those_of_the_graph(light):
    run = light.experiments.create("cats")
    names = [column.name for column in EXPERIMENT_COLUMNS]
    assert list(light.experiments.get(run)) == ["run_id", *names[1:]]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"colour": "red"}, "no column 'colour'"),
        ({"status": "done"}, "one of created, running"),
        ({"model_name": 7}, "model_name cannot be 7; give text"),
        ({"name": "a\0b"}, "U\\+0000"),
        ({"created_at": "2026-01-01"}, "give a datetime"),
        ({"created_at": datetime(2026, 1, 1)}, "no time zone"),
        ({"created_at": datetime(2001, 1, 1, tzinfo=UTC)}, "a day that the graph does not have"),
        ({"metrics": {"loss": float("nan")}}, "no JSON that every store can hold"),
        ({"parameters": [1, 2]}, "is no mapping from keys to values"),
        ({"tags": [1, 2]}, "give a mapping"),
        ({"completed_at": datetime(2026, 1, 1, tzinfo=UTC)}, "the end of a run, which is created"),
        ({"dataset": "x", "model_type": "x" * 2501}, "more than 2,500 bytes"),
    ],
)
def test_what_the_contract_refuses_is_refused_and_nothing_is_recorded(light, columns, told):
    with pytest.raises(ValueError, match=told):
        light.experiments.create("cats", **columns)
    assert light.experiments.list() == []


def test_runs_that_are_not_there_and_ids_that_are_taken(light):
    with pytest.raises(ValueError, match="there is no run 'x'"):
        light.experiments.update("x", notes="n")
    with pytest.raises(Refusal, match="There is no run 'x'"):
        light.experiments.get("x")
    light.experiments.create("cats", run_id="x")
    with pytest.raises(ValueError, match="there is a run 'x' already"):
        light.experiments.create("dogs", run_id="x")
    with pytest.raises(ValueError, match="does not end as 'running'"):
        light.experiments.complete("x", status="running")
    light.experiments.update("x", status="running")
    with pytest.raises(ValueError, match="is running and cannot become created"):
        light.experiments.update("x", status="created")
    with pytest.raises(Refusal, match=r"no run 'y' .* none was deleted"):
        light.experiments.delete(["x", "y"])
    assert light.experiments.get("x")["experiment"] == "cats"


def test_the_newest_runs_are_listed_and_filtered(light):
    now = datetime.now(UTC)
    for n in range(5):
        light.experiments.create(f"e{n % 2}", run_id=f"r{n}", created_at=now - timedelta(minutes=n))
    assert [run["run_id"] for run in light.experiments.list(limit=2)] == ["r0", "r1"]
    assert [run["run_id"] for run in light.experiments.list("e1")] == ["r1", "r3"]
    assert light.experiments.list(status="failed") == []
    assert len(light.experiments.list(limit=None)) == 5


def test_asking_makes_nothing(light):
    assert light.experiments.list() == light.artifacts.list() == light.training_data.list() == []
    assert light.adopt().runs == 0
    light.artifacts.collect()
    assert not light.home.exists()


def test_the_home_is_its_owners_alone(light):
    light.experiments.create("cats")
    assert light.home.stat().st_mode & 0o077 == 0


def test_neither_dagster_nor_arrow_is_imported(tmp_path):
    code = (
        "import sys, ml_assets; light = ml_assets.connect(light=True); "
        "run = light.experiments.create('cats'); light.experiments.complete(run, {'a': 1}); light.experiments.list(); "
        "print(sorted({'dagster', 'pyarrow', 'duckdb', 'psycopg', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ML_ASSETS_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


# --- files ------------------------------------------------------------------------------------------


def test_equal_contents_are_stored_once_and_go_with_the_last_that_names_them(light, file):
    one, two = (light.experiments.create("cats") for _ in range(2))
    row = light.artifacts.add(one, file, "vectorizer")
    assert (row["run_id"], row["artifact_type"], row["path"], row["size_bytes"]) == (
        one,
        "vectorizer",
        "model.onnx",
        7,
    )
    assert light.artifacts.add(two, file, name="best/model.onnx")["artifact_type"] == "model"
    assert contents(light) == [row["sha256"]]
    assert light.artifacts.content.path(row["sha256"]) == (
        light.home / "artifacts" / row["sha256"][:2] / row["sha256"][2:]
    )
    assert light.artifacts.read(two, "best/model.onnx") == b"weights"
    light.artifacts.delete(one, "model.onnx")
    assert light.artifacts.read(two, "best/model.onnx") == b"weights"
    assert light.experiments.delete(two).bytes == 7
    assert contents(light) == []


def test_another_content_of_the_same_name_takes_its_place(light, file):
    run = light.experiments.create("cats")
    light.artifacts.add(run, file)
    file.write_bytes(b"better weights")
    light.artifacts.add(run, file, metadata={"epoch": 2})
    (row,) = light.artifacts.list(run)
    assert (row["size_bytes"], row["metadata"]) == (14, {"epoch": 2})
    assert contents(light) == [row["sha256"]]


def test_no_backup_is_made_between_a_file_and_its_row(light, file, monkeypatch):
    done = []
    run = light.experiments.create("cats")

    def beside_no_backup(step):
        def taken(*given):
            with pytest.raises(Refusal, match="has been writing"), paused(light.settings.home, 0):
                pass
            done.append(step.__name__)
            return step(*given)

        return taken

    for name in ("put", "remove"):
        step = getattr(light.artifacts.content, name)
        monkeypatch.setattr(light.artifacts.content, name, beside_no_backup(step))
    light.artifacts.add(run, file)
    file.write_bytes(b"others")
    light.artifacts.add(run, file)
    assert done == ["put", "put", "remove"]
    with paused(light.settings.home, 0):
        pass


def test_a_changed_file_is_told_with_both_hashes_and_mended_by_adding_it_again(light, file):
    run = light.experiments.create("cats")
    row = light.artifacts.add(run, file)
    place = light.artifacts.content.path(row["sha256"])
    place.chmod(0o600)
    place.write_bytes(b"wEights")
    found = hashlib.sha256(b"wEights").hexdigest()
    for asked in (light.artifacts.read, light.artifacts.path):
        with pytest.raises(Refusal, match=f"SHA-256 {row['sha256']}.* now has the SHA-256 {found}"):
            asked(run, "model.onnx")
    (told,) = light.artifacts.verify()
    assert found in told
    light.artifacts.add(run, file)
    assert light.artifacts.verify() == []
    place.unlink()
    with pytest.raises(Refusal, match="is gone"):
        light.artifacts.read(run, "model.onnx")


@pytest.mark.parametrize("name", ["", "/abs", "../up", "a/../b", "a\0b", "x" * 256, "a.partial", "."])
def test_names_that_no_folder_can_hold_are_refused(light, file, name):
    run = light.experiments.create("cats")
    with pytest.raises(Refusal, match="cannot be the name"):
        light.artifacts.add(run, file, name=name)
    assert contents(light) == []


def test_a_file_and_a_folder_of_one_name_are_refused(light, file):
    run = light.experiments.create("cats")
    light.artifacts.add(run, file, name="a/b")
    for name in ("a", "a/b/c"):
        with pytest.raises(Refusal, match="beside which"):
            light.artifacts.add(run, file, name=name)


def test_a_file_of_no_run_and_a_file_that_is_none(light, file):
    with pytest.raises(Refusal, match="There is no run 'x'"):
        light.artifacts.add("x", file)
    run = light.experiments.create("cats")
    with pytest.raises(Refusal, match="is no file"):
        light.artifacts.add(run, file.parent)
    assert contents(light) == []
    assert list((light.home / "artifacts" / ".partial").iterdir()) == []


def test_a_kill_between_file_and_row_leaves_a_file_that_collecting_removes(light, file, monkeypatch):
    run = light.experiments.create("cats")
    put = light.artifacts.content.put

    def killed(staged, intact):
        put(staged, intact)
        raise KeyboardInterrupt

    monkeypatch.setattr(light.artifacts.content, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        light.artifacts.add(run, file)
    assert light.artifacts.list() == []
    assert len(contents(light)) == 1
    assert light.artifacts.collect().bytes == 7
    assert contents(light) == []


def test_what_the_graph_names_is_not_collected(light, file):
    run = light.experiments.create("cats")
    row = light.artifacts.add(run, file)
    graph = Settings(home=light.home).sqlite_path
    graph.parent.mkdir()
    with sqlite3.connect(graph) as connection:
        connection.execute("CREATE TABLE ml_model_artifacts (experiment_id, sha256)")
        connection.execute("INSERT INTO ml_model_artifacts VALUES (?, ?)", (run, row["sha256"]))
    assert light.experiments.delete(run).files == 0
    assert contents(light) == [row["sha256"]]
    graph.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnavailable, match="cannot be asked which files it names"):
        light.artifacts.collect()
    graph.unlink()
    told = run_maintenance(LightFiles(light.settings), Retention(timedelta(days=1)))
    assert told.done == ("Removed 1 file that no run names any more.",)
    assert (told.bytes_before, told.bytes_after) == (7, 0)


def test_data_of_runs(light):
    run = light.experiments.create("cats")
    light.training_data.add(run, "cifar10", "s3://b/cifar10", row_count=50_000, context="training")
    light.training_data.add(run, "cifar10", "s3://b/cifar10", row_count=60_000, context="training")
    light.training_data.add(run, "cifar10", "s3://b/cifar10", context="testing")
    counts = {row["context"]: row["row_count"] for row in light.training_data.list(run)}
    assert counts == {"training": 60_000, "testing": None}
    with pytest.raises(ValueError, match="row_count cannot be -1"):
        light.training_data.add(run, "cifar10", "x", row_count=-1)
    with pytest.raises(Refusal, match="There is no run"):
        light.training_data.add("x", "cifar10", "x")
    light.training_data.delete(run, "cifar10")
    with pytest.raises(Refusal, match="has no dataset"):
        light.training_data.delete(run, "cifar10")


# --- several at once --------------------------------------------------------------------------------


def test_threads_that_merge_into_one_run_lose_nothing(light):
    run = light.experiments.create("cats")
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda n: light.experiments.update(run, metrics={f"m{n}": n}), range(60)))
    assert light.experiments.get(run)["metrics"] == {f"m{n}": n for n in range(60)}


def test_processes_that_make_the_registry_and_fill_it_at_once(light, file):
    """Each records runs and one file, the same for all, in a home that is not there yet."""
    code = (
        "import sys, ml_assets; light = ml_assets.connect(sys.argv[1], light=True)\n"
        "for n in range(5):\n"
        "    run = light.experiments.create('cats', name=f'{sys.argv[3]}-{n}')\n"
        "    light.artifacts.add(run, sys.argv[2])\n"
        "    light.experiments.complete(run, {'accuracy': 0.5})\n"
    )
    arguments = [sys.executable, "-c", code, str(light.home), str(file)]
    started = [subprocess.Popen([*arguments, str(n)]) for n in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    runs = light.experiments.list()
    assert sorted(run["name"] for run in runs) == sorted(f"{p}-{n}" for p in range(3) for n in range(5))
    assert len(light.artifacts.list()) == 15
    assert len(contents(light)) == 1
    assert light.artifacts.verify() == []


def test_writers_that_are_killed_leave_no_row_without_its_file(light, tmp_path):
    """Nor anything that collecting does not remove."""
    code = (
        "import itertools, pathlib, sys, ml_assets; light = ml_assets.connect(sys.argv[1], light=True)\n"
        "file = pathlib.Path(sys.argv[2])\n"
        "for n in itertools.count():\n"
        "    file.write_bytes(str(n % 7).encode() * 100_000)\n"
        "    run = light.experiments.create('cats')\n"
        "    light.artifacts.add(run, file)\n"
        "    if n % 3: light.experiments.delete(run)\n"
        "    print(n, flush=True)\n"
    )
    arguments = [sys.executable, "-c", code, str(light.home), str(tmp_path / "file")]
    for rounds, further_s in ((1, 0.001), (3, 0.007), (5, 0.012)):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(rounds):
                process.stdout.readline()
            time.sleep(further_s)  # somewhere within the next round
            process.kill()
    assert light.experiments.list()
    assert light.artifacts.verify() == []
    light.artifacts.collect()
    assert set(contents(light)) == {row["sha256"] for row in light.artifacts.list()}
    assert light.adopt().lost == ()


def test_adding_beside_collecting_never_loses_a_file(light, tmp_path):
    """Runs with one content come and go, while somebody collects all the time."""
    source = tmp_path / "same"
    source.write_bytes(b"same")
    done = threading.Event()

    def collecting():
        while not done.is_set():
            light.artifacts.collect()

    def coming_and_going(n: int) -> None:
        for _ in range(8):
            run = light.experiments.create("cats")
            light.artifacts.add(run, source)
            assert light.artifacts.read(run, "same") == b"same"
            light.experiments.delete(run)

    with ThreadPoolExecutor(5) as pool:
        collector = pool.submit(collecting)
        try:
            list(pool.map(coming_and_going, range(3)))
        finally:
            done.set()
        collector.result()
    assert contents(light) == []


# --- handing it to the graph ------------------------------------------------------------------------


def landed(light: LightStack) -> dict[str, list[dict]]:
    files = sorted((light.home / "landing" / "runs").rglob("*.jsonl"))
    return {file.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def test_adopting_lands_everything_once(light, file):
    day = datetime(2026, 5, 1, 10, tzinfo=UTC)
    run = light.experiments.create(
        "cats", run_id="r/1", created_at=day, tags={"team": "blue"}, artifact_uri="s3://b/x"
    )
    light.artifacts.add(run, file, "scaler", name="out/model.onnx", metadata={"epoch": 1})
    light.training_data.add(run, "cifar10", "s3://b/cifar10", row_count=5)
    light.experiments.create("cats", run_id="r2", created_at=day + timedelta(days=1))
    told = light.adopt()
    assert (told.runs, told.artifacts, told.training_data, told.files_changed, told.lost) == (2, 1, 1, 2, ())
    found = landed(light)
    assert list(found) == ["2026-05-01.jsonl", "2026-05-02.jsonl"]
    (row,) = found["2026-05-01.jsonl"]
    assert row["created_at"] == "2026-05-01T10:00:00.000000Z"
    view = Path(row["artifact_uri"].removeprefix("file://"))
    assert (view / "out" / "model.onnx").read_bytes() == b"weights"
    assert (view / "out" / "model.onnx").stat().st_nlink == 2
    assert row["tags"]["team"] == "blue"
    assert row["tags"]["mlflow.datasets"] == [{"name": "cifar10", "source": "s3://b/cifar10", "row_count": 5}]
    kept = row["tags"]["ml_assets.light"]
    assert kept["artifact_uri"] == "s3://b/x"
    assert (kept["artifacts"][0]["artifact_type"], kept["artifacts"][0]["metadata"]) == (
        "scaler",
        {"epoch": 1},
    )
    before = {path: path.stat().st_mtime_ns for path in told.folder.iterdir()}
    assert light.adopt().files_changed == 0
    assert before == {path: path.stat().st_mtime_ns for path in told.folder.iterdir()}


def test_a_change_is_adopted_and_what_was_deleted_goes(light, file):
    day = datetime(2026, 5, 1, 10, tzinfo=UTC)
    for n in range(2):
        light.experiments.create("cats", run_id=f"r{n}", created_at=day + timedelta(days=n))
    sha256 = light.artifacts.add("r0", file)["sha256"]
    light.adopt()
    light.experiments.complete("r1", {"accuracy": 0.5})
    assert light.experiments.delete("r0").files == 0  # the landing file still names it
    assert contents(light) == [sha256]
    assert light.adopt().files_changed == 2
    found = landed(light)
    assert found["2026-05-01.jsonl"] == []
    assert found["2026-05-02.jsonl"][0]["metrics"] == {"accuracy": 0.5}
    assert contents(light) == []
    assert list((light.home / "artifacts" / "runs").iterdir()) == []


def test_a_lost_file_is_told_and_does_not_hold_the_rest_back(light, file):
    run = light.experiments.create("cats")
    row = light.artifacts.add(run, file)
    light.artifacts.content.path(row["sha256"]).unlink()
    told = light.adopt()
    assert told.lost == (f"{run}: model.onnx",)
    assert told.runs == 1


def test_a_registry_of_another_release_is_not_touched(light):
    light.experiments.create("cats")
    with sqlite3.connect(light.home / "light" / "registry.db") as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(Refusal, match="schema 9 of another release"):
        light.experiments.list()


# --- keeping the best -------------------------------------------------------------------------------


@pytest.fixture
def ranked(light, tmp_path) -> list[str]:
    """Three runs of one dataset, from the best to the worst, each with a file of its own and one that they share."""
    (tmp_path / "shared").write_bytes(b"shared")
    runs = []
    for n in range(3):
        run = light.experiments.create("cats", dataset="cifar10")
        (tmp_path / "own").write_bytes(b"own of %d" % n)
        for name in ("own", "shared"):
            light.artifacts.add(run, tmp_path / name)
        light.experiments.complete(run, {"accuracy": 0.9 - n / 10})
        runs.append(run)
    return runs


def test_the_best_stay_and_the_rest_go_with_their_files(light, ranked):
    found = light.keep(2)
    assert [each.run_id for each in found.going] == ranked[2:]
    assert [(each.files, each.bytes) for each in found.going] == [(2, 14)]
    assert len(light.experiments.list()) == 3
    told = found.remove()
    assert (told.runs, told.files, told.bytes) == (1, 1, 8)
    assert {run["run_id"] for run in light.experiments.list()} == set(ranked[:2])
    assert light.artifacts.verify() == []
    assert len(contents(light)) == 3
    with pytest.raises(Refusal, match="none was deleted"):
        found.remove()


def test_the_command_shows_and_removes_nothing_unless_it_is_told_to(light, ranked, cli):
    done = cli(light.home, "runs", "keep", "--best", "1")
    assert done.returncode == 1
    assert "2 runs with 4 files (28 bytes) would be removed, and nothing was: give --yes" in done.stderr
    assert "Runs of the graph are not looked at" in done.stdout
    shown = json.loads(cli(light.home, "runs", "keep", "--best", "1", "--json").stdout)
    assert [run["state"] for run in shown] == ["stays", "goes", "goes"]
    assert shown[0]["run_id"] == ranked[0]
    assert shown[0]["metrics"] == {"accuracy": 0.9}
    assert len(light.experiments.list()) == 3
    done = cli(light.home, "runs", "keep", "--best", "1", "--yes")
    assert "Removed 2 runs, 2 files and 16 bytes." in done.stdout
    assert [run["run_id"] for run in light.experiments.list()] == ranked[:1]
    assert not (light.home / "services").exists()


def test_the_command_adopts(light, ranked, cli):
    done = cli(light.home, "runs", "adopt")
    assert "3 runs with 6 files and 0 datasets: 1 landing file in" in done.stdout
    told = json.loads(cli(light.home, "runs", "adopt", "--json").stdout)
    assert (told["runs"], told["artifacts"], told["files_changed"]) == (3, 6, 0)
