"""The sensors of the raw room, tick by tick, on a real ledger and a real instance."""

import json
import os
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from ml_assets.contracts import tables
from ml_assets.defs import raw
from ml_assets.defs.raw.sensors import REQUESTED_BY
from ml_assets.intake import quarantine
from ml_assets.intake.due import rebuilds
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.intake.tracking import take_in_mlflow
from ml_assets.resources import store_resources
from ml_assets.stores import touched_days

RUN = {"run_id": "r1", "experiment": "e", "status": "completed", "created_at": "2026-05-01T10:00:00Z"}
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


class Ticks:
    """Evaluates a sensor again and again, as the daemon does."""

    def __init__(self, settings, instance) -> None:
        self.settings = settings
        self.instance = instance
        self.resources = store_resources(settings)
        self._definitions = dg.Definitions.merge(
            raw.build(settings, tables(settings)),
            dg.Definitions(resources={**self.resources, "duckdb_io": dg.mem_io_manager}),
        )
        self._cursors: dict[str, str | None] = {}

    def __call__(self, name: str) -> str | list[tuple[set[str], dict[str, str]]]:
        """The skip reason, or (tables, tags) of each requested run."""
        sensor = self._definitions.resolve_sensor_def(name)
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self._cursors.get(name),
            resources={key: self.resources[key] for key in sensor.required_resource_keys},
            definitions=self._definitions,
        ) as context:
            answer = sensor.evaluate_tick(context)
        self._cursors[name] = answer.cursor
        assert all(request.run_key is None for request in answer.run_requests or [])
        return answer.skip_message or [
            ({key.path[-1] for key in request.asset_selection or []}, dict(request.tags))
            for request in answer.run_requests or []
        ]

    def put(self, stream: str, name: str, *rows: dict[str, Any], age_s: float = 60) -> None:
        path = self.settings.landing / stream / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        then = time.time() - age_s
        os.utime(path, (then, then))

    def take_in(self, stream: str) -> None:
        bounds = Bounds(self.settings.partitions_start, datetime.now(UTC))
        listing = list_files(self.settings.landing / stream)
        take_in_files(stream, listing, self.resources["lake"], self.resources["postgres"], bounds)

    def run(self, sensor: str, status: dg.DagsterRunStatus, ended: float | None = None) -> None:
        """A run that the sensor asked for, in some state."""
        run = dg.DagsterRun(
            job_name="job",
            run_id=str(uuid.uuid4()),
            tags={REQUESTED_BY: sensor},
            status=dg.DagsterRunStatus.STARTED if ended else status,
        )
        self.instance.add_run(run)
        if ended:
            self.instance.report_run_failed(run)


@pytest.fixture
def tick(settings):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Ticks(settings, instance)


def test_landing(tick):
    assert tick("landing_sensor") == "no new files in the landing folders"
    tick.put("runs", "a.jsonl", RUN)
    tick.put("documents", "growing.jsonl", age_s=0)
    ((tables, tags),) = tick("landing_sensor")
    assert tables == {"intake_runs"}
    assert (tags[REQUESTED_BY], tags["ml_assets/new_runs"]) == ("landing_sensor", "1")

    tick.take_in("runs")
    tick.put("documents", "growing.jsonl", age_s=60)
    ((tables, _),) = tick("landing_sensor")
    assert tables == {"intake_documents"}
    tick.take_in("documents")
    assert tick("landing_sensor") == "no new files in the landing folders"
    assert tick("landing_sensor") == "no new files in the landing folders"

    tick.put("runs", "a.jsonl", {**RUN, "status": "failed"}, age_s=50)
    ((tables, _),) = tick("landing_sensor")
    assert tables == {"intake_runs"}


def test_what_is_left_alone_is_told(tick):
    tick.put("runs", "notes.txt", RUN)
    why = "its name ends in none of .jsonl, .csv, .parquet (or these with .gz or .zst); rename it"
    assert (
        tick("landing_sensor") == f"no new files in the landing folders; 1 left alone: runs/notes.txt: {why}"
    )


def test_what_a_run_could_not_read_is_not_asked_for_before_it_changes(tick):
    tick.put("runs", "a.jsonl", RUN)
    assert isinstance(tick("landing_sensor"), list)
    tick.run("landing_sensor", dg.DagsterRunStatus.SUCCESS)  # and the file is still new
    why = "runs/a.jsonl: the last run could not read it; its intake tells why"
    assert tick("landing_sensor") == f"no new files in the landing folders; 1 left alone: {why}"
    assert tick("landing_sensor") == f"no new files in the landing folders; 1 left alone: {why}"
    tick.put("runs", "a.jsonl", RUN, age_s=50)
    assert isinstance(tick("landing_sensor"), list)
    tick.run("landing_sensor", dg.DagsterRunStatus.CANCELED)
    assert isinstance(tick("landing_sensor"), list)


def test_a_retry_is_seen_though_no_file_has_changed(tick):
    tick.put("runs", "a.jsonl", {**RUN, "status": "done"})
    tick.take_in("runs")
    assert tick("landing_sensor") == "no new files in the landing folders"
    postgres, lake = tick.resources["postgres"], tick.resources["lake"]
    assert quarantine.reopen(postgres, lake, "runs", tick.settings.landing, {}) == 1
    ((tables, _),) = tick("landing_sensor")
    assert tables == {"intake_runs"}


def test_no_second_request_while_the_first_is_under_way(tick):
    tick.put("runs", "a.jsonl", RUN)
    tick.run("mlflow_sensor", dg.DagsterRunStatus.STARTED)  # another sensor's
    assert isinstance(tick("landing_sensor"), list)
    tick.run("landing_sensor", dg.DagsterRunStatus.STARTING)
    assert tick("landing_sensor") == "the run that was asked for before is not finished"


def test_after_failures_it_waits_longer_and_longer(tick):
    tick.put("runs", "a.jsonl", RUN)
    for failures in (1, 2, 3):
        tick.run("landing_sensor", dg.DagsterRunStatus.FAILURE, ended=time.time())
        reason = tick("landing_sensor")
        seconds = 30 * 2 ** (failures - 1)
        assert f"{failures} in a row; next try in" in reason
        assert seconds - 10 < int(reason.split()[-2]) <= seconds
    tick.run("landing_sensor", dg.DagsterRunStatus.SUCCESS)
    assert isinstance(tick("landing_sensor"), list)


def test_mlflow(tick):
    from mlflow import MlflowClient

    assert tick("mlflow_sensor") == "nothing has been logged to MLflow yet"
    mlflow = tick.resources["mlflow"]
    mlflow.database.parent.mkdir(parents=True)
    client = MlflowClient(mlflow.tracking_uri())
    run = client.create_run(client.create_experiment("e"))
    ((tables, _),) = tick("mlflow_sensor")
    assert tables == {"intake_runs"}
    client.log_metric(run.info.run_id, "loss", 1.0)
    ((tables, _),) = tick("mlflow_sensor")
    assert tables == {"intake_runs", "intake_metrics"}

    bounds = Bounds(date(2014, 1, 1), datetime.now(UTC) + timedelta(days=1))
    for stream in ("runs", "metrics"):
        take_in_mlflow(
            stream,
            client,
            mlflow.tracking_uri(),
            tick.resources["lake"],
            tick.resources["postgres"],
            bounds,
        )
    assert tick("mlflow_sensor") == "no new or changed runs in MLflow"
    assert tick("mlflow_sensor") == "MLflow's file has not changed"


def test_touched_days(tick):
    assert tick("touched_days_sensor") == "no touched days"
    days = [date(2025, 1, 1) + timedelta(days=30 * n) for n in range(3)]
    rows = [
        {**RUN, "run_id": f"r{n}", "created_at": f"{day.isoformat()}T00:00:00Z"} for n, day in enumerate(days)
    ]
    tick.put("runs", "a.jsonl", *rows)
    tick.put("documents", "b.jsonl", {"document_id": "d", "text": "t", "updated_at": "2026-05-01T00:00:00Z"})
    for stream in ("runs", "documents"):
        tick.take_in(stream)
    requests = tick("touched_days_sensor")
    assert [(tables, tags.get(RANGE[0]), tags.get(RANGE[1])) for tables, tags in requests] == [
        *(({"raw_runs"}, day.isoformat(), day.isoformat()) for day in days),
        ({"raw_documents"}, None, None),
    ]
    with tick.resources["postgres"].connect(write=True) as connection:
        for stream in ("runs", "documents"):
            touched_days.settle(
                connection,
                stream,
                touched_days.touched(connection, stream, date(1970, 1, 1), date(2100, 1, 1)),
            )
    assert tick("touched_days_sensor") == "no touched days"


def ranges(due):
    found = [(sorted(each.streams), each.days) for each in rebuilds(due)]
    return [(streams, str(days.first), str(days.last)) for streams, days in found if days]


def test_one_run_covers_days_that_lie_close_together():
    due = {
        "runs": [date(2026, 5, 1)],
        "metrics": [date(2026, 5, 1), date(2026, 5, 4)],
        "performance": [date(2026, 5, 6)],
        "predictions": [],
        "documents": [],
    }
    assert ranges(due) == [(["metrics", "performance", "runs"], "2026-05-01", "2026-05-06")]


def test_metrics_of_other_days_come_before_the_runs_that_show_them():
    due = {"runs": [date(2026, 1, 1)], "metrics": [date(2026, 5, 1)]}
    assert ranges(due) == [(["metrics"], "2026-05-01", "2026-05-01")]
    assert ranges({**due, "metrics": []}) == [(["runs"], "2026-01-01", "2026-01-01")]


def test_many_files_ask_for_as_many_runs_as_one(tick):
    for n in range(200):
        day = date(2026, 1, 1) + timedelta(days=n % 20)
        tick.put(
            "runs", f"{n}.jsonl", {**RUN, "run_id": f"r{n}", "created_at": f"{day.isoformat()}T00:00:00Z"}
        )
    assert len(tick("landing_sensor")) == 1
    tick.take_in("runs")
    ((_, tags),) = tick("touched_days_sensor")
    assert (tags[RANGE[0]], tags[RANGE[1]]) == ("2026-01-01", "2026-01-20")
