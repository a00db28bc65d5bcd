"""What `up` tells of runs, from the history of real ones."""

import io

import dagster as dg
import pytest

from ml_assets.cli.journal import FILE_BYTES, ServerLog, run_told


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as one:
        yield one


def intake(**metadata: int) -> dg.AssetsDefinition:
    @dg.asset(key=["duckdb", "intake_runs"])
    def asset(context) -> None:
        context.add_output_metadata(metadata)

    return asset


def told(
    instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, partition: str | None = None
) -> list[str]:
    made = dg.materialize(list(assets), instance=instance, raise_on_error=False, partition_key=partition)
    run = instance.get_run_by_id(made.run_id)
    assert run is not None
    return [line.replace(run.run_id, "RUN") for line in run_told(instance, run, "http://here")]


def test_what_was_taken_in_is_counted(instance):
    assert told(instance, intake(contents_read=2, rows_read=1200, rows_quarantined=3, withdrawn=1)) == [
        "Taken in: 1,200 rows of runs, 1 withdrawn; 3 in quarantine (`ml-assets quarantine list runs` tells why)."
    ]
    assert told(instance, intake(contents_read=0, rows_read=0, rows_quarantined=0, withdrawn=0)) == []


def test_rebuilt_tables_are_named_with_their_days(instance):
    @dg.asset(key=["duckdb", "raw_runs"], partitions_def=dg.DailyPartitionsDefinition("2026-03-01"))
    def raw() -> None: ...

    @dg.asset(key=["quality", "reconciliation"])
    def quality() -> None: ...

    assert told(instance, raw, partition="2026-03-02") == ["Rebuilt: 1 table (duckdb/raw_runs) on 1 day."]
    assert told(instance, quality) == []


def test_a_check_that_does_not_pass_is_named(instance):
    @dg.asset(key=["duckdb", "cards"], check_specs=[dg.AssetCheckSpec("keys", asset=["duckdb", "cards"])])
    def cards():
        yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False)])

    assert told(instance, cards) == [
        "Rebuilt: 1 table (duckdb/cards).",
        "Did not pass: 1 check (keys of duckdb/cards).",
    ]


def test_a_failed_run_says_why_and_where_to_look(instance):
    @dg.asset(key=["duckdb", "cards"])
    def cards() -> None:
        try:
            raise OSError("the disk\nis full")
        except OSError as fault:
            raise RuntimeError("cannot write") from fault

    assert told(instance, cards) == [
        "Failed: duckdb/cards: OSError: the disk is full",
        "The run is at http://here/runs/RUN; `ml-assets refresh` goes on where it stopped.",
    ]


def test_the_servers_words_go_to_a_rotated_file_and_their_faults_to_the_screen(tmp_path):
    said: list[str] = []
    fault = "2026-03-01 10:00:00 +0000 - dagster.code_server - ERROR - cannot load"
    log = ServerLog(tmp_path / "logs" / "up.log", said.append)
    log.take(
        io.StringIO(f"first\n{fault}\n" + ("x" * 1_000_000 + "\n") * (FILE_BYTES // 1_000_000 + 1) + "last\n")
    )
    assert said == [fault]
    assert (tmp_path / "logs" / "up.log").read_text().endswith("last\n")
    assert (tmp_path / "logs" / "up.log.1").read_text().startswith(f"first\n{fault}\n")
    assert log.last[-1] == "last"
