"""Events of OpenLineage, taken by a collector on this machine."""

import json
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.contracts import tables
from ml_assets.defs.quality import openlineage
from ml_assets.errors import StoreUnavailable
from ml_assets.operations.lineage import graph_lineage
from ml_assets.operations.openlineage import RunTold, run_event, send
from ml_assets.settings import Settings

# In the lock of the tests; an environment that is older has it not.
pytest.importorskip("openlineage.client")


@pytest.fixture
def collector() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """URL of a collector, and what it was sent."""
    taken: list[dict[str, Any]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path != "/behind/proxy/api/v1/lineage" or self.headers["Authorization"] != "Bearer hush":
                self.send_response(401)
                self.end_headers()
                return
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", taken
        server.shutdown()
        thread.join()


def test_nothing_is_there_unless_a_collector_is_named(tmp_path: Path):
    settings = Settings(home=tmp_path / "home")
    assert not openlineage.build(settings, tables(settings)).sensors


def test_the_start_and_the_end_of_a_run_are_told(tmp_path: Path, collector):
    url, taken = collector
    settings = Settings(
        home=tmp_path / "home", openlineage_url=f"{url}/behind/proxy", openlineage_api_key="hush"
    )

    @dg.asset(key=["postgres", "run_leaderboard"])
    def board() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"dagster/row_count": 7})

    @dg.asset(key=["chroma", "document_index"], deps=[board])
    def broken() -> None:
        raise RuntimeError("no disk")

    found: dict[str, Any] = {
        sensor.name: sensor for sensor in openlineage.build(settings, tables(settings)).sensors or ()
    }
    assert set(found) == {f"openlineage_{each}" for each in ("start", "complete", "fail", "abort")}
    with dg.instance_for_test() as instance:
        good = dg.materialize([board], instance=instance)
        bad = dg.materialize([board, broken], instance=instance, raise_on_error=False)
        for name, result, kind in (
            ("openlineage_start", good, dg.DagsterEventType.RUN_START),
            ("openlineage_complete", good, dg.DagsterEventType.RUN_SUCCESS),
            ("openlineage_fail", bad, dg.DagsterEventType.RUN_FAILURE),
        ):
            (record,) = instance.get_records_for_run(result.run_id, of_type=kind).records
            context = dg.build_run_status_sensor_context(
                name, record.event_log_entry.get_dagster_event(), instance, result.dagster_run
            )
            found[name](context)
    start, complete, fail = taken
    assert [event["eventType"] for event in taken] == ["START", "COMPLETE", "FAIL"]
    assert start["run"]["runId"] == complete["run"]["runId"] == good.run_id
    assert start["outputs"] == []
    assert start["eventTime"] <= complete["eventTime"]
    assert [each["name"] for each in complete["inputs"]] == ["postgres/ml_experiments"]
    (output,) = complete["outputs"]
    assert output["name"] == "postgres/run_leaderboard"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 7
    lineage = output["facets"]["columnLineage"]
    (source,) = lineage["fields"]["mean"]["inputFields"]
    assert (source["name"], source["field"]) == ("postgres/ml_experiments", "metrics")
    assert source["transformations"][0]["type"] == "DIRECT"
    assert {each["field"] for each in lineage["dataset"]} == {"experiment", "status"}
    assert "rank" in {field["name"] for field in output["facets"]["schema"]["fields"]}
    assert [each["name"] for each in fail["outputs"]] == ["postgres/run_leaderboard"]
    assert "chroma__document_index" in fail["run"]["facets"]["errorMessage"]["message"]


def test_a_collector_that_takes_nothing_is_told_of_without_passwords(tmp_path: Path, collector):
    url, taken = collector
    graph = graph_lineage(Settings(home=tmp_path / "home"))
    now = datetime.now(UTC)
    event = run_event(RunTold("0198c3b0-0000-7000-8000-000000000001", "refresh", "START", now, {}), graph)
    secret = url.replace("//", "//me:s3cr%2Ft@")
    with pytest.raises(StoreUnavailable, match=r"401.*: check ML_ASSETS_OPENLINEAGE_URL") as told:
        send(secret, event)
    assert "s3cr" not in "".join(traceback.format_exception(told.value))
    with pytest.raises(
        StoreUnavailable, match="set ML_ASSETS_OPENLINEAGE_URL to a URL that begins with http"
    ):
        send("marquez:5000", event)
    assert taken == []
