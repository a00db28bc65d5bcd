"""The demo as a newcomer finds it: the whole graph green on real runs, and a second time that changes nothing."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets import connect
from ml_assets.build import build_defs
from ml_assets.cli.instance import prepare_home
from ml_assets.contracts import tables
from ml_assets.contracts.lineage import external
from ml_assets.demo import Manifest, Plan
from ml_assets.resources import store_resources
from ml_assets.settings import Settings

pytestmark = pytest.mark.embedded_only("works in a home of its own, whose stores are all embedded")

pytestmark = pytest.mark.timeout(900)  # whole refreshes, on machines that do other things as well


@pytest.fixture(scope="module")
def home_settings(demo_home: Path) -> Settings:
    """Settings of the demo's home, whatever the environment says."""
    return Settings(home=demo_home)


@pytest.fixture(scope="module")
def defs(home_settings: Settings) -> dg.Definitions:
    """The graph on the demo's stores."""
    return build_defs(home_settings)


@pytest.fixture(scope="module")
def instance(home_settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's history of the demo."""
    with dg.DagsterInstance.from_config(str(home_settings.dagster_home)) as instance:
        yield instance


@pytest.fixture(scope="module")
def status(cli, demo_home: Path) -> dict[str, Any]:
    """What `ml-assets status --json --verify` tells."""
    done = cli(demo_home, "status", "--json", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def postgres(home_settings: Settings):
    """PostgreSQL of the demo."""
    return store_resources(home_settings)["postgres"]


def rows(status: dict[str, Any], store: str, table: str) -> int:
    return status["stores"][store]["tables"][table]["rows"]


def test_every_asset_was_built(defs, instance):
    graph = defs.resolve_asset_graph()
    built = {asset for asset in graph.get_all_asset_keys() if graph.get(asset).is_executable}
    assert len(built) >= 25
    missing = {key for key in built if not instance.fetch_materializations(key, limit=1).records}
    of_the_night = ("maintenance", "slow_statements")
    assert missing == {dg.AssetKey(["quality", name]) for name in of_the_night}
    for key in built:
        if graph.get(key).partitions_def is not None:
            assert 14 <= len(instance.get_materialized_partitions(key)) <= 16, key


ALARM = dg.AssetCheckKey(dg.AssetKey(["clickhouse", "alerts"]), "no_open_alerts")
"""The demo corrupts what the models of digits are given."""


def test_every_check_has_passed_but_the_alarm(defs, instance):
    checks = list(defs.resolve_asset_graph().asset_check_keys)
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    assert {check for check in checks if check not in found} == set()
    assert {check for check, record in found.items() if record.status.value != "SUCCEEDED"} == {ALARM}


def test_the_shift_is_an_alert_from_its_first_day_on_and_nothing_else_is(cli, demo_home):
    """Latency aside, which is that of this machine."""
    done = cli(demo_home, "alerts", "--all", "--json")
    found = [alert for alert in json.loads(done.stdout) if alert["kind"] in ("quality", "drift")]
    manifest = Manifest.read(demo_home)
    assert manifest is not None
    shift = manifest.end - timedelta(days=manifest.days - Plan().shift_day)
    told = {alert["model_name"] for alert in found if alert["opened_at"].startswith(shift.isoformat())}
    assert told == {"digits-mlp", "digits-random_forest"}
    assert {alert["model_name"] for alert in found} == told
    assert {alert["model_name"] for alert in found if alert["state"] == "open"} == told
    assert min(alert["opened_at"] for alert in found) >= shift.isoformat()
    assert {alert["kind"] for alert in found} == {"quality", "drift"}


def test_no_run_of_the_graph_failed(instance):
    runs = instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_the_input_is_as_wide_as_promised(postgres):
    with postgres.asking() as ask:
        [(runs, families, datasets, nested, failed, replayed)] = ask(
            "SELECT count(*), count(DISTINCT model_type), count(DISTINCT dataset), count(parent_run_id), "
            "count(*) FILTER (WHERE status = 'failed' AND error <> ''), "
            "count(*) FILTER (WHERE tags ->> 'replayed' = 'true') FROM ml_experiments"
        )
    assert runs >= 150
    assert families >= 6
    assert datasets >= 4
    assert nested >= 20
    assert failed >= 5
    assert replayed == runs


def test_learning_curves_have_steps(home_settings):
    lake = store_resources(home_settings)["lake"]
    with lake.asking() as ask:
        [(curves,)] = ask(
            "SELECT count(*) FROM (SELECT run_id, key FROM raw.raw_metrics GROUP BY ALL "
            "HAVING count(DISTINCT step) >= 10)"
        )
    assert curves >= 30


def test_rows_agree_between_the_stores(status):
    runs = rows(status, "duckdb", "raw_runs")
    for store, table in (
        ("postgres", "ml_experiments"),
        ("sqlite", "ml_experiments"),
        ("duckdb", "run_features"),
        ("duckdb", "experiment_cards"),
        ("postgres", "experiment_embeddings"),
        ("chroma", "experiment_index"),
    ):
        assert rows(status, store, table) == runs, (store, table)
    events = rows(status, "duckdb", "raw_performance")
    assert rows(status, "duckdb", "model_performance_events") == events
    assert rows(status, "clickhouse", "ml_model_performance") == events
    assert rows(status, "duckdb", "ml_predictions") == rows(status, "duckdb", "raw_predictions")
    chunks = rows(status, "duckdb", "document_chunks")
    assert rows(status, "postgres", "document_embeddings") == chunks
    assert rows(status, "chroma", "document_index") == chunks
    assert rows(status, "sqlite", "ml_model_artifacts") > 0
    assert rows(status, "sqlite", "ml_training_data") > 0


def test_status_has_the_promised_form(status):
    assert status["differences"] == []
    stores = status["stores"]
    assert list(stores) == ["postgres", "duckdb", "clickhouse", "chroma", "sqlite", "redis", "mlflow"]
    for name, store in stores.items():
        extra = {"extensions"} if name == "postgres" else set()
        wanted = {"url", "mode", "version", "state", "detail", "latency_ms", "tables"}
        assert set(store) == wanted | extra, name
        assert (store["mode"], store["state"]) == ("embedded", "healthy"), store
        assert isinstance(store["latency_ms"], float)
        for table in store["tables"].values():
            assert set(table) == {"asset", "rows", "content_hash", "bytes", "newest", "written_at"}
            assert table["rows"] > 0
            assert len(table["content_hash"]) >= 16
    assert any(extension.startswith("vector ") for extension in stores["postgres"]["extensions"])
    assert stores["postgres"]["version"].startswith("18")


def test_status_lists_tables_of_contracts_only(status):
    listed = {(store, table) for store, told in status["stores"].items() for table in told["tables"]}
    assert {table for store, table in listed if store == "postgres"} == {
        "ml_experiments",
        "ml_run_metrics",
        "ml_run_params",
        "run_leaderboard",
        "experiment_embeddings",
        "document_embeddings",
        "experiment_clusters",
        "document_clusters",
        "online_features",
        "model_daily_features",  # of serving
    }
    assert not any("ledger" in table or "manifest" in table for _, table in listed)


def test_status_as_a_table(cli, demo_home):
    done = cli(demo_home, "status", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for word in ("postgres", "healthy", "performance_hourly", "PostgreSQL extensions: "):
        assert word in done.stdout


def history(instance: dg.DagsterInstance, home: Path) -> dict[str, Any]:
    """What a second demo must leave as it is."""
    landing = home / "landing"
    return {
        "dagster runs": instance.get_runs_count(),
        "landing": {str(p): p.stat().st_mtime_ns for p in sorted(landing.rglob("*")) if p.is_file()},
        "models": {str(p): p.stat().st_mtime_ns for p in sorted((home / "mlflow").rglob("*.joblib"))},
        "manifest": (home / "demo" / "manifest.json").read_text(),
    }


def test_a_second_demo_changes_nothing(cli, demo_home, instance, status):
    before = history(instance, demo_home)
    assert len(before["models"]) > 100
    first_s = wall_seconds(instance)
    started = datetime.now().timestamp()
    done = cli(demo_home, "demo")
    second_s = datetime.now().timestamp() - started
    assert done.returncode == 0, done.stderr
    assert history(instance, demo_home) == before
    again = cli(demo_home, "status", "--json", "--verify")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)["stores"]
    tables = {store: content["tables"] for store, content in status["stores"].items()}
    assert {store: content["tables"] for store, content in told.items()} == tables
    assert second_s < first_s / 2  # a fraction, on machines that do other things as well


def test_a_second_start_finds_the_history(home_settings, instance):
    """As `up` and every command of ours prepare it; its rooms are not made anew."""
    prepare_home(home_settings)
    with dg.DagsterInstance.from_config(str(home_settings.dagster_home)) as again:
        assert again.get_runs_count() == instance.get_runs_count() > 0
        key = dg.AssetKey(["clickhouse", "performance_hourly"])
        assert again.get_materialized_partitions(key) == instance.get_materialized_partitions(key) != set()


def wall_seconds(instance: dg.DagsterInstance) -> float:
    """How long the graph's own runs took when it was made; the training came on top."""
    records = instance.get_run_records()
    return sum((record.end_time or 0) - (record.start_time or 0) for record in records)


def test_after_the_demo_the_sensors_find_nothing_new(defs, instance):
    reasons = {}
    for name in ("landing_sensor", "mlflow_sensor", "touched_days_sensor"):
        sensor = defs.resolve_sensor_def(name)
        given = {key: defs.resources[key] for key in ("postgres", "mlflow")}
        with dg.build_sensor_context(instance=instance, definitions=defs, resources=given) as context:
            answer = sensor.evaluate_tick(context)
        assert answer.run_requests == [], name
        reasons[name] = answer.skip_message
    assert reasons == {
        "landing_sensor": "no new files in the landing folders",
        "mlflow_sensor": "no new or changed runs in MLflow",
        "touched_days_sensor": "no touched days",
    }


def test_after_the_demo_automation_asks_for_nothing(defs, instance):
    """As the daemon does: a first look without a cursor, then the next one."""
    # Within the hour after the last tick of every schedule that automation knows, so that none has passed.
    between_ticks = datetime.now(UTC).replace(minute=40, second=0, microsecond=0)
    everything = dg.AssetSelection.all()
    first = dg.evaluate_automation_conditions(defs, instance, everything, evaluation_time=between_ticks)
    second = dg.evaluate_automation_conditions(
        defs, instance, everything, cursor=first.cursor, evaluation_time=between_ticks
    )
    assert (first.total_requested, second.total_requested) == (0, 0)


def test_the_assets_show_what_they_hold(defs, instance):
    """Schema, counts and a preview on every table; a plot where it says more than a table."""
    graph = defs.resolve_asset_graph()
    plotted = set()
    for key in graph.get_all_asset_keys():
        if not graph.get(key).is_executable or key.path[0] == "quality":
            continue
        metadata = instance.fetch_materializations(key, limit=1).records[0].asset_materialization.metadata
        counted = {"dagster/row_count", "dagster/partition_row_count"} & set(metadata)
        assert counted, key
        assert "preview" in metadata, key
        # Intake is appended to and never compared as a whole.
        assert "content_hash" in metadata or key.path[1].startswith("intake_"), key
        if any("data:image/png" in str(entry.value) for entry in metadata.values()):
            plotted.add(key.to_user_string())
    assert {"duckdb/run_features", "clickhouse/performance_hourly"} <= plotted


def test_every_table_tells_dagster_where_its_columns_come_from_once_a_run(defs, instance, home_settings):
    for asset, contract in tables(home_settings).items():
        key = dg.AssetKey(asset.split("/"))
        newest = instance.get_latest_materialization_event(key).asset_materialization
        lineage = newest.metadata["dagster/column_lineage"].value
        assert set(lineage.deps_by_column) == set(contract.names), asset
        if contract.partition_column:
            records = instance.fetch_materializations(key, limit=100).records
            told = [r for r in records if "dagster/column_lineage" in r.asset_materialization.metadata]
            assert len(told) == len({record.run_id for record in told}), asset


def test_the_page_of_the_graph_tells_rows_and_ages(cli, demo_home, status, tmp_path):
    page = tmp_path / "lineage.html"
    done = cli(demo_home, "lineage", "run_leaderboard.mean", "--html", str(page))
    assert (done.returncode, done.stderr) == (0, "")
    text = page.read_text()
    assert f"{rows(status, 'duckdb', 'run_features'):,} rows" in text
    assert text.count("check failed") == 1  # the alarm
    built = text.count("<time ")
    assert built >= 25
    assert text.count("not built yet") == text.count("</article>") - built - len(external())


def test_the_corrupted_dataset_and_its_day_are_named_and_the_training_set_is_made_again(cli, demo_home):
    manifest = Manifest.read(demo_home)
    assert manifest is not None
    shift = manifest.end - timedelta(days=manifest.days - Plan().shift_day)
    stack = connect(demo_home)
    told = stack.why("digits-mlp")
    (run,) = [claim.rows[0].key["id"] for claim in told.claims if claim.topic == "made that day"]
    stack.features.pin("why", run_id=run)
    try:
        done = cli(demo_home, "why", "digits-mlp", (shift + timedelta(days=2)).isoformat(), "--json")
    finally:
        stack.features.unpin("why")
    found = json.loads(done.stdout)
    assert (found["day"], found["dataset"]) == (shift.isoformat(), "digits")
    assert [cause["name"] for cause in found["causes"] if cause["verdict"] == "likely"] == ["data"]
    by_topic = {claim["topic"]: claim for claim in found["claims"]}
    assert by_topic.keys() >= {"regression", "drift", "other models", "version", "parameters", "similar run"}
    assert "none of 64 were" in by_topic["drift"]["sentence"]
    assert "rows of the day differ" in by_topic["made that day"]["sentence"]
    kept = by_topic["training set"]["rows"][0]["values"]
    assert kept["equal"] and kept["content_hash"] == kept["noted_hash"]
    other = cli(demo_home, "why", "iris-knn")
    assert other.returncode == 1 and "iris-knn never became worse" in other.stderr
