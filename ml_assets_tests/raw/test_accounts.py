"""Rows read = loaded + superseded + quarantined: where it is shown, and who notices when it is not so."""

import json
from datetime import date

import dagster as dg
import pytest

from ml_assets.defs.raw.checks import intake_accounts, raw_accounts
from ml_assets.intake import ledger

RUN = {"run_id": "r1", "experiment": "e", "status": "completed", "created_at": "2026-05-01T10:00:00Z"}
ROWS = {
    "a.jsonl": [RUN, {**RUN, "run_id": "r2"}, {**RUN, "run_id": "r3", "created_at": "2026-05-02T10:00:00Z"}],
    "b.jsonl": [{**RUN, "status": "running"}, {**RUN, "run_id": "r4"}, {**RUN, "status": "gone fishing"}],
}


@pytest.fixture
def filled(room):
    """A room with runs, its raw table built."""
    for name, rows in ROWS.items():
        room.put("runs", name, "".join(json.dumps(row) + "\n" for row in rows))
        room.take_in("runs")
    room.rebuild("runs")
    return room


def checked(room) -> dict[str, tuple[bool, str]]:
    """What the checks say: whether it passed, and the description, by table."""
    checks = [intake_accounts("runs"), raw_accounts("runs")]
    defs = dg.Definitions(
        asset_checks=checks,
        jobs=[dg.define_asset_job("checks", selection=dg.AssetSelection.all_asset_checks())],
        resources={"lake": room.lake, "postgres": room.postgres},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("checks").execute_in_process(instance=instance)
    found = result.get_asset_check_evaluations()
    return {each.asset_key.path[-1]: (each.passed, each.description or "") for each in found}


def test_the_checks_fail_for_rows_that_are_gone_or_too_many(filled):
    well = (True, "All accounts add up.")
    assert checked(filled) == {"intake_runs": well, "raw_runs": well}

    with filled.lake.get_connection(write=True) as connection:
        connection.execute("DELETE FROM intake.intake_runs WHERE run_id = 'r2'")
        connection.execute("INSERT INTO raw.raw_runs FROM raw.raw_runs WHERE run_id = 'r3'")

    found = checked(filled)
    assert not any(passed for passed, _ in found.values())
    assert found["intake_runs"][1].startswith(
        "a.jsonl: 3 rows were read, 3 taken in and 0 quarantined, but intake holds 2 and 0; "
    )
    assert found["raw_runs"][1] == (
        "raw_runs holds 2 rows on 2026-05-02, the ledger accounts for 1; materialize it again"
    )


def test_every_file_has_its_account(filled):
    with filled.postgres.connect() as connection:
        found = ledger.newest_accounts(connection, "runs", date(2026, 5, 1), date(2026, 5, 1), 10)
        assert [vars(each) for each in found] == [
            {"unit": "b.jsonl", "read": 3, "loaded": 1, "superseded": 1, "quarantined": 1},
            {"unit": "a.jsonl", "read": 3, "loaded": 3, "superseded": 0, "quarantined": 0},
        ]
        assert (
            ledger.newest_accounts(connection, "runs", date(2026, 5, 2), date(2026, 5, 2), 1)[0].unit
            == "a.jsonl"
        )
        assert ledger.day_counts(connection, "runs", date(2026, 5, 1), date(2026, 5, 1)) == (3, 1)
