"""Alerts end to end: episodes in ClickHouse, the book in PostgreSQL, the check, messages over HTTP, the command line."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.contracts import tables
from ml_assets.errors import Refusal
from ml_assets.operations import performance_alerts
from ml_assets.operations.alert_messages import check_urls, tell, url_hash
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.services.home import private_home
from ml_assets.settings import Settings
from ml_assets.stack import Stack
from ml_assets.stores.clickhouse.ddl import ensure_table

NOW = datetime(2026, 11, 12, 9, tzinfo=UTC)
DAY = timedelta(days=1)

REGRESSIONS = tables(Settings())["clickhouse/performance_regressions"]
DRIFT = tables(Settings())["clickhouse/feature_drift"]


def fill(clickhouse: ClickHouseResource, last_seen: int = 11, closed: int | None = None) -> None:
    """The demo's shift of day 10 as the tables of episodes tell it."""
    end = f"'2026-11-{closed} 06:00:00'" if closed else "NULL"
    with clickhouse.client(write=True) as client:
        ensure_table(client, REGRESSIONS)
        client.command("TRUNCATE TABLE performance_regressions")
        client.command(
            f"""INSERT INTO performance_regressions (
                model_name, metric, slice, slice_value, opened_at, kind, direction, began_at, last_seen_at, closed_at,
                before, after, change, deviations, confidence, description
            ) VALUES (
                'forest', 'accuracy', 'dataset', 'digits', '2026-11-10 06:00:00', 'quality', 'down',
                '2026-11-10 00:00:00', '2026-11-{last_seen} 00:00:00', {end},
            0.97, 0.6, -0.38, -9, 0.99999, 'The accuracy of forest on digits fell from 0.97 to 0.6.')"""
        )
        ensure_table(client, DRIFT)
        client.command("TRUNCATE TABLE feature_drift")
        client.command(
            """INSERT INTO feature_drift (
                day, model_name, subject, feature, slice, slice_value, kind, ks, psi, threshold, corrected_p, state
            ) SELECT
                toDateTime64('2026-11-01 00:00:00', 6, 'UTC') + toIntervalDay(number), 'forest', 'input',
                'pixel_' || toString(n), 'all', '', if(n = 1, 'category', 'number'), if(n = 1, NULL, 0.1 + n / 10),
                0.12, 0.1, 1e-6, multiIf(n = 0, 'too few', number >= 9, 'drift', 'none')
            FROM (SELECT number, arrayJoin([0, 1, 2]) AS n FROM numbers(11))"""
        )


@contextmanager
def receiver(answers: list[int]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """URL of a web hook that answers so, and 200 at last, with what it was sent."""
    taken: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = answers.pop(0) if answers else 200
            taken.append({"status": status, "authorization": self.headers["Authorization"], **content})
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"json://me:s3cretword@127.0.0.1:{server.server_port}/T0kenOfTheHook", taken
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def stores(
    tmp_path: Path, postgres: PostgresResource, clickhouse: ClickHouseResource
) -> Callable[..., Settings]:
    """Settings of a home with these stores, for given alert URLs."""

    def settings(alert_urls: str | None = None) -> Settings:
        return Settings(
            home=tmp_path, postgres_url=postgres.url, clickhouse_url=clickhouse.url, alert_urls=alert_urls
        )

    return settings


def open_alerts(postgres: PostgresResource, now: datetime = NOW) -> list[dict[str, Any]]:
    return performance_alerts.alerts(postgres, None, ("open",), now).to_pylist()


def merge(
    postgres: PostgresResource, clickhouse: ClickHouseResource, now: datetime = NOW
) -> list[dict[str, Any]]:
    findings, judged = performance_alerts.found(clickhouse)
    return performance_alerts.merge(postgres, findings, judged, now).to_pylist()


def test_an_episode_is_an_alert_is_a_failing_check_and_a_message(
    stores: Callable[..., Settings],
    postgres: PostgresResource,
    clickhouse: ClickHouseResource,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Through the graph, its check and its sensor, with a web hook that answers 500 twice."""
    fill(clickhouse)
    caplog.set_level(logging.DEBUG)
    with receiver([500, 500]) as (url, taken), dg.DagsterInstance.ephemeral() as instance:
        defs = build_defs(stores(url))
        job = defs.resolve_implicit_global_asset_job_def()
        alerts = dg.AssetKey(["clickhouse", "alerts"])
        done = job.execute_in_process(instance=instance, asset_selection=[alerts])
        checks = {each.check_name: each for each in done.get_asset_check_evaluations()}
        assert {name: each.passed for name, each in checks.items()} == {
            "contract": True,
            "unique_key": True,
            "no_open_alerts": False,
        }
        failed = checks["no_open_alerts"]
        assert failed.severity == dg.AssetCheckSeverity.ERROR
        assert failed.description == (
            "2 alerts are open. forest, dataset digits: accuracy -38.0 % since 2026-11-10. "
            "forest: drift 0.30 since 2026-11-10."
        )
        told_why = done.get_asset_materialization_events()[0].materialization.metadata["why"].value
        assert str(told_why).startswith("## Why forest became worse on 2026-11-10\n")
        assert "2 of the 2 inputs of forest of 2026-11-10 are other than in its baseline" in str(told_why)
        with clickhouse.client() as client:
            columns = "metric, state, severity, change, opened_at, notified_at"
            stood = client.query(f"SELECT {columns} FROM alerts ORDER BY metric").result_rows
        opened = datetime(2026, 11, 10, 6, tzinfo=UTC)
        assert stood[0] == ("accuracy", "open", "error", -0.38, opened, None)
        assert stood[1][:4] == ("drift", "open", "error", pytest.approx(0.3))

        sensor = defs.resolve_sensor_def("alert_sensor")

        def tick(cursor: str | None) -> Any:
            with dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"postgres": postgres}
            ) as context:
                return sensor.evaluate_tick(context)

        first = tick(None)
        assert first.skip_message == "2 messages sent."
        assert [each["status"] for each in taken] == [500, 500, 200]
        assert taken[-1]["title"] == "ml-assets: 2 alerts"
        assert "[error] forest, dataset digits: accuracy -38.0 % since 2026-11-10" in taken[-1]["message"]
        again = tick(first.cursor)
        assert (again.skip_message, len(taken)) == ("Nothing new to tell.", 3)
        events = "".join(map(str, instance.all_logs(done.run_id)))
    told = events + caplog.text + "".join(capfd.readouterr())
    with postgres.asking() as ask:
        told += repr(ask("SELECT * FROM ml_alert_messages"))
    assert "s3cretword" not in told
    assert "T0kenOfTheHook" not in told


def test_a_hook_that_takes_nothing_is_tried_later_and_told_of_without_its_secrets(
    stores: Callable[..., Settings], postgres: PostgresResource, clickhouse: ClickHouseResource
) -> None:
    fill(clickhouse)
    merge(postgres, clickhouse)
    with receiver([]) as (good, taken), receiver([500] * 6) as (bad, refused):
        urls = [good, bad, "slak://T0kenOfTheHook/s3cretword"]
        first = tell(postgres, urls, NOW)
        assert first.sent == 2
        assert len(refused) == 3
        assert first.failures == [
            "The 2nd URL of ML_ASSETS_ALERT_URLS (json://***) did not take 2 alerts (Failed to send JSON POST "
            "notification: Internal server error., error=500); next try in 30 s.",
            "The 3rd URL of ML_ASSETS_ALERT_URLS (slak://***) did not take 2 alerts (it is none that apprise knows; "
            "https://github.com/caronc/apprise/wiki lists them); next try in 30 s.",
        ]
        soon = tell(postgres, urls[:2], NOW + timedelta(seconds=20), first.waiting)
        assert (soon.sent, soon.failures, len(refused), len(taken)) == (0, [], 3, 1)
        later = tell(postgres, urls[:2], NOW + timedelta(seconds=31), soon.waiting)
        assert later.waiting[url_hash(bad)][0] == 2
        assert "next try in 60 s" in later.failures[0]
        last = tell(postgres, urls[:2], NOW + timedelta(minutes=5), later.waiting)
        assert (last.sent, last.waiting, len(taken), refused[-1]["status"]) == (2, {}, 1, 200)
    assert check_urls(urls) == [
        "The 3rd URL of ML_ASSETS_ALERT_URLS (slak://***) is none that apprise knows: "
        "https://github.com/caronc/apprise/wiki lists them."
    ]


def test_a_host_that_does_not_answer_holds_nobody_up(
    postgres: PostgresResource, clickhouse: ClickHouseResource
) -> None:
    fill(clickhouse)
    merge(postgres, clickhouse)
    found = tell(postgres, ["json://me:s3cretword@127.0.0.1:9/T0kenOfTheHook"], NOW)
    assert found.sent == 0
    assert "A Connection error occurred" in found.failures[0]
    assert "s3cretword" not in found.failures[0]


def test_what_people_say_of_an_alert_holds_for_as_long_as_it_is_the_same(
    stores: Callable[..., Settings], postgres: PostgresResource, clickhouse: ClickHouseResource
) -> None:
    fill(clickhouse)
    merge(postgres, clickhouse)
    accuracy, drift = open_alerts(postgres)
    with receiver([]) as (url, taken):
        said = performance_alerts.acknowledge(postgres, accuracy["alert_id"][:4], "a new lamp", NOW)
        assert (said["state"], said["acknowledged_note"]) == ("acknowledged", "a new lamp")
        performance_alerts.snooze(postgres, drift["alert_id"], "3d", NOW)
        assert open_alerts(postgres) == []
        assert tell(postgres, [url], NOW).sent == 0

        fill(clickhouse, last_seen=12)  # it goes on
        rows = {row["metric"]: row for row in merge(postgres, clickhouse)}
        assert {row["alert_id"] for row in rows.values()} == {accuracy["alert_id"], drift["alert_id"]}
        assert (rows["accuracy"]["state"], rows["drift"]["state"]) == ("acknowledged", "snoozed")
        assert rows["accuracy"]["last_seen_at"] == datetime(2026, 11, 12, tzinfo=UTC)

        late = NOW + 3 * DAY
        assert [row["metric"] for row in open_alerts(postgres, late)] == ["drift"]
        assert tell(postgres, [url], late).sent == 1
        assert tell(postgres, [url], late + DAY).sent == 0
        performance_alerts.snooze(postgres, drift["alert_id"], late + 2 * DAY, late + DAY)
        assert tell(postgres, [url], late + 2 * DAY).sent == 1  # it is told anew when the time has come
        assert len(taken) == 2

        with clickhouse.client(write=True) as client:  # late data show that there was no drift
            client.command("TRUNCATE TABLE feature_drift")
        fill_only_regressions = merge(postgres, clickhouse, late + 3 * DAY)
        gone = next(row for row in fill_only_regressions if row["metric"] == "drift")
        assert (gone["state"], gone["withdrawn"]) == ("closed", True)
        assert tell(postgres, [url], late + 3 * DAY).sent == 1
        assert tell(postgres, [url], late + 4 * DAY).sent == 0
        assert "[withdrawn] forest: drift" in taken[-1]["message"]
        with pytest.raises(Refusal, match="is over since 2026-11-18 09:00"):
            performance_alerts.acknowledge(postgres, drift["alert_id"], "", late)
        fill(clickhouse)  # and later ones that there was: whoever was told that it is over is told again
        merge(postgres, clickhouse, late + 5 * DAY)
        assert tell(postgres, [url], late + 5 * DAY).sent == 1


def test_an_alert_that_was_never_told_is_not_told_to_be_over(
    postgres: PostgresResource, clickhouse: ClickHouseResource
) -> None:
    fill(clickhouse, closed=12)
    rows = merge(postgres, clickhouse)
    assert {row["metric"]: row["state"] for row in rows} == {"accuracy": "closed", "drift": "open"}
    with receiver([]) as (url, taken):
        assert tell(postgres, [url], NOW).sent == 1
    assert "accuracy" not in taken[0]["message"]


def test_tables_that_nobody_made_close_no_alert(
    postgres: PostgresResource, clickhouse: ClickHouseResource
) -> None:
    assert merge(postgres, clickhouse) == []
    fill(clickhouse)
    merge(postgres, clickhouse)
    with clickhouse.client(write=True) as client:
        client.command("DROP TABLE feature_drift")
        client.command("DROP TABLE performance_regressions")
    assert [row["state"] for row in merge(postgres, clickhouse)] == ["open", "open"]


def test_alerts_of_models_that_have_no_other_runs_are_forgotten_with_them(
    postgres: PostgresResource, clickhouse: ClickHouseResource
) -> None:
    performance_alerts.forget(postgres, ["nobody ever recorded a run"])
    fill(clickhouse)
    merge(postgres, clickhouse)
    for run_id in ("demo", "own"):
        postgres.create_experiment("e", id=run_id, model_name="forest")
    performance_alerts.forget(postgres, ["demo"])
    assert len(open_alerts(postgres)) == 2
    performance_alerts.forget(postgres, ["demo", "own"])
    assert open_alerts(postgres) == []


def test_the_commands(
    stores: Callable[..., Settings], postgres: PostgresResource, clickhouse: ClickHouseResource, cli
) -> None:
    settings = stores()
    private_home(settings.home)

    def run(*arguments: str) -> Any:
        return cli(settings.home, "alerts", *arguments, ML_ASSETS_POSTGRES_URL=postgres.url)

    assert run().stdout == "No alert is open.\n"
    assert json.loads(run("--json").stdout) == []
    fill(clickhouse, closed=12)
    merge(postgres, clickhouse)
    (alert,) = json.loads(run("--json").stdout)
    wanted = "alert_id model_name metric kind opened_at last_seen_at closed_at state change confidence"
    assert set(wanted.split()) <= set(alert)
    assert (alert["model_name"], alert["state"], alert["opened_at"]) == (
        "forest",
        "open",
        "2026-11-10T00:00:00+00:00",
    )
    shown = run().stdout
    assert alert["alert_id"] in shown
    assert "1 closed: --all shows them." in shown
    assert len(json.loads(run("--all", "--json").stdout)) == 2
    assert run("--csv", "--model", "nobody").stdout.count("\n") == 1
    assert run("--model", "forst").stdout == "There never was an alert of forst: do you mean forest?\n"
    assert run("--model", "zzz").stdout == "There never was an alert of zzz.\n"
    assert run("--csv").stdout.startswith('"alert_id"') or run("--csv").stdout.startswith("alert_id")

    done = run("snooze", alert["alert_id"][:5], "3d")
    assert "is snoozed until" in done.stdout, done.stderr
    done = run("acknowledge", alert["alert_id"], "--note", "known", "--json")
    assert json.loads(done.stdout)[0]["acknowledged_note"] == "known"
    assert run().stdout.startswith("No alert is open.\n1 acknowledged, 1 closed")
    wrong = alert["alert_id"][:-1] + "x"
    done = run("acknowledge", wrong)
    assert (done.returncode, done.stderr) == (
        1,
        f"There is no alert '{wrong}': do you mean {alert['alert_id']}?\n",
    )
    assert "neither a length of time" in run("snooze", alert["alert_id"], "soon").stderr
    assert "999999w from now is after the year 9999" in run("snooze", alert["alert_id"], "999999w").stderr
    assert "is past" in run("snooze", alert["alert_id"], "2020-01-01").stderr
    performance = Stack(settings).performance
    with pytest.raises(Refusal, match="An alert is never 'opened'"):
        performance.alerts(state="opened")  # pyright: ignore[reportArgumentType]
    assert performance.alerts("forest", None).num_rows == 2
