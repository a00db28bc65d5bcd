"""`ml-assets status --prometheus` on real stores: the figures of `status --json`, and never an error of the whole."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.maintenance import FIRST, Site
from ml_assets.cli.instance import open_instance
from ml_assets.operations import performance_alerts
from ml_assets.resources import store_resources
from ml_assets.settings import Settings

STORES = ("postgres", "clickhouse", "sqlite")
DAYS = 2
ALERT = (
    "INSERT INTO ml_alerts (alert_id, source, model_name, metric, kind, slice, slice_value, direction, severity, "
    "began_at, opened_at, last_seen_at, description) SELECT 'a' || n, 'drift', 'm', 'x', 'step', '', '', 'up', "
    "'error', now(), now(), now(), '' FROM generate_series(1, 3) AS n"
)


@pytest.fixture
def filled(settings: Settings) -> Settings:
    """Two days in some stores, a file that waits, three alerts, one of them over; a check, a run and its retry failed."""
    resources = store_resources(settings)
    for store in STORES:
        Site(store, resources).write(range(DAYS), 0)
    performance_alerts.ensure_schema(resources["postgres"])
    with resources["postgres"].connect(write=True) as connection:
        connection.execute(ALERT)
        connection.execute("UPDATE ml_alerts SET closed_at = now() WHERE alert_id = 'a1'")
    waiting = settings.landing / "runs" / "new.jsonl"
    waiting.parent.mkdir(parents=True)
    waiting.write_text("{}\n")

    @dg.op
    def fails() -> None:
        raise ValueError

    @dg.job
    def failing() -> None:
        fails()

    with open_instance(settings) as instance:
        failing.execute_in_process(instance=instance, raise_on_error=False)
        failing.execute_in_process(
            instance=instance, raise_on_error=False, tags={"dagster/retry_number": "1"}
        )
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                dg.AssetKey(["postgres", "ml_experiments"]), "keys_are_unique", passed=False, metadata={}
            )
        )
    return settings


def read(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and labels, as Prometheus reads them."""
    return {
        family.name.removeprefix("ml_assets_"): {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for sample in family.samples
        }
        for family in text_string_to_metric_families(text)
    }


@contextmanager
def held_by_another_process(home: str) -> Iterator[None]:
    """Another process has embedded ClickHouse open until the block ends."""
    program = (
        "import sys\n"
        "from ml_assets.resources.clickhouse import ClickHouseResource\n"
        "with ClickHouseResource(home=sys.argv[1]).client():\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", program, home]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        yield
        other.communicate("\n")


@pytest.mark.embedded_only("holds the file of an embedded store")
def test_figures_are_those_of_status(filled, cli, environment, tmp_path, monkeypatch):
    file = tmp_path / "ml_assets.prom"
    done = cli(filled.home, "status", "--prometheus", "--output", str(file), **environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert list(tmp_path.glob("*.prom*")) == [file]
    told = read(file.read_text())
    whole = json.loads(cli(filled.home, "status", "--json", **environment).stdout)
    status = whole["stores"]
    for name, store in status.items():
        assert told["store_up"][store["state"], name] == 1
        for table, held in store["tables"].items():
            which = (name, table)
            assert told["table_rows"][which] == held["rows"]
            assert told["table_bytes"][which] == held["bytes"]
            for key in ("newest", "written_at"):
                moment = told[f"table_{key.removesuffix('_at')}_timestamp_seconds"].get(which)
                given = held[key]
                assert moment == (None if given is None else datetime.fromisoformat(given).timestamp())
    newest = datetime(FIRST.year, FIRST.month, FIRST.day + DAYS - 1, tzinfo=UTC).timestamp()
    for store in STORES:
        assert told["table_newest_timestamp_seconds"][store, "hourly"] == newest
        assert told["store_disk_bytes"][store,] > 0
    assert told["store_disk_bytes"].keys() == {(part,) for part in whole["disk"]}
    assert {"dagster", "logs", "landing", *STORES} <= whole["disk"].keys()
    assert told["alerts"] == {("error", "drift", "open"): 2}
    waits = filled.landing / "runs" / "new.jsonl"
    assert told["intake_files_waiting"]["runs",] == 1 and told["intake_files_waiting"]["metrics",] == 0
    assert told["intake_oldest_waiting_timestamp_seconds"] == {
        ("runs",): pytest.approx(waits.stat().st_mtime, abs=0.01)
    }
    assert told["runs"]["failure",] == 2 and told["runs"]["success",] == 0 and told["runs_retried"][()] == 1
    assert told["collect_failed"] and not any(told["collect_failed"].values())

    # A store that is busy is left out, and nothing else.
    clickhouse = store_resources(filled)["clickhouse"]
    for module in ("ml_assets.resources.clickhouse", "ml_assets.maintenance.status"):
        monkeypatch.setattr(f"{module}.BUSY_TIMEOUT_S", 0.1)
    with held_by_another_process(clickhouse.home):
        done = cli(filled.home, "status", "--prometheus", **environment)
    assert done.returncode == 0, done.stderr
    told = read(done.stdout)
    assert told["store_up"]["busy", "clickhouse"] == 1 and told["store_up"]["healthy", "postgres"] == 1
    assert (
        {"postgres", "sqlite"} <= {store for store, _ in told["table_rows"]} <= status.keys() - {"clickhouse"}
    )
    assert ("clickhouse",) not in told["store_disk_bytes"]


def test_nothing_is_started_or_made(cli, tmp_path):
    home = tmp_path / "home"
    (home / "landing").mkdir(parents=True)
    done = cli(home, "status", "--prometheus")
    assert done.returncode == 0, done.stderr
    told = read(done.stdout)
    assert told["store_up"]["down", "postgres"] == 1 and told["runs"] == {}
    assert [each.name for each in home.iterdir()] == ["landing"]


def test_a_file_that_is_not_read_is_refused(cli, tmp_path):
    for output, said in (("figures.txt", ".prom"), ("none/figures.prom", "no folder")):
        done = cli(tmp_path, "status", "--prometheus", "--output", str(tmp_path / output))
        assert done.returncode == 1 and said in done.stderr
    assert cli(tmp_path, "status", "--output", "x.prom").returncode == 1


def test_the_server_tells_them_over_http(tmp_path):
    home = tmp_path / "home"
    (home / "landing").mkdir(parents=True)
    command = [sys.executable, "-m", "ml_assets.cli", "metrics-server", "--port", "0", "--every", "600"]
    environment = {**os.environ, "ML_ASSETS_HOME": str(home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            first, second = (httpx.get(url, timeout=300).text for _ in range(2))
            assert read(first)["store_up"]["down", "postgres"] == 1
            assert first == second  # told again
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
