"""What takes PostgreSQL the most time, asked of a real server: from Python, the command line and the asset."""

import json
from typing import Any

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.cli.report import print_slow_statements
from ml_assets.errors import Refusal
from ml_assets.maintenance.slow_statements import SlowStatements, slow_statements
from ml_assets.resources import store_resources
from ml_assets.settings import Settings

SLEEP = "SELECT pg_sleep(0.03), 'a secret value', 7 AS slow_one"


@pytest.fixture
def stores(settings: Settings):
    """The resources, after a slow statement and one that keeps its constant."""
    resources = store_resources(settings)
    with resources["postgres"].connect(write=True) as connection:
        connection.execute(SLEEP)
        connection.execute(SLEEP.replace("7", "8"))
        connection.execute("DO $$ BEGIN PERFORM 'another secret'; END $$")
    return resources


def test_statements_of_ours_are_told_without_their_values(stores):
    found = slow_statements(stores["postgres"], stores["lake"], embedded=False, limit=1000).statements
    assert found is not None
    assert [each["total_ms"] for each in found] == sorted((each["total_ms"] for each in found), reverse=True)
    (slow,) = [each for each in found if "slow_one" in each["statement"]]
    assert slow["statement"].startswith("SELECT pg_sleep($1)")
    assert (slow["calls"], slow["rows"]) == (2, 2)
    assert 30 <= slow["mean_ms"] <= slow["max_ms"] <= slow["total_ms"]
    with stores["postgres"].connect() as connection:
        assert slow["database"] == connection.info.dbname
    assert not [each for each in found if "secret" in each["statement"]]
    assert len(slow_statements(stores["postgres"], stores["lake"], False, 1).statements or ()) == 1
    with pytest.raises(Refusal, match="0 statements cannot be shown"):
        slow_statements(stores["postgres"], stores["lake"], False, 0)


@pytest.mark.embedded_only("takes an extension away, which belongs to the server's owner")
def test_a_server_that_does_not_count_them_is_told_of_with_the_way_out(stores):
    with stores["postgres"].connect(write=True) as connection:
        connection.execute("DROP EXTENSION pg_stat_statements")
    found = slow_statements(stores["postgres"], stores["lake"], embedded=False)
    assert found.statements is None
    assert "shared_preload_libraries" in found.detail
    assert "CREATE EXTENSION pg_stat_statements in database" in found.detail
    assert "ml-assets down" in slow_statements(stores["postgres"], stores["lake"], embedded=True).detail


def test_the_command_and_the_asset_tell_them(settings, stores, environment, cli, capsys):
    done = cli(settings.home, "status", "--slow", "500", "--json", **environment)
    answer = json.loads(done.stdout)
    assert answer["slow_statements_detail"] == ""
    assert [each for each in answer["slow_statements"] if "slow_one" in each["statement"]]
    print_slow_statements(SlowStatements(answer["slow_statements"][:1]))
    assert "Slow statements" in capsys.readouterr().out
    refused = cli(settings.home, "status", "5", **environment)
    assert (refused.returncode, "give --slow as well" in refused.stderr) == (1, True)

    defs = build_defs(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            asset_selection=[dg.AssetKey(["quality", "slow_statements"])], instance=instance
        )
        (event,) = result.get_asset_materialization_events()
    told: Any = event.materialization.metadata
    assert told["total_ms"].value > 60
    records = told["slow_statements"].records
    assert 1 <= len(records) <= 10
    assert records[0].data.keys() == answer["slow_statements"][0].keys()
