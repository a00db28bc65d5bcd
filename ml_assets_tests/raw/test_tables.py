"""The tables of intake follow the streams' contracts."""

from ml_assets.contracts import STREAMS, tables
from ml_assets.intake.ingest import ensure_tables
from ml_assets.settings import Settings

TABLES = tables(Settings())


def columns(lake, table: str) -> set[str]:
    with lake.asking() as ask:
        return {name for (name,) in ask(f"SELECT column_name FROM (DESCRIBE intake.{table})")}


def test_a_stream_that_gained_a_column_keeps_its_rows(lake):
    ensure_tables(lake)
    with lake.get_connection(write=True) as connection:
        connection.execute("INSERT INTO intake.intake_predictions (prediction_id) VALUES ('kept')")
        connection.execute("ALTER TABLE intake.intake_predictions DROP COLUMN model_version")
    ensure_tables(lake)
    for name in STREAMS:
        assert columns(lake, f"intake_{name}") == set(TABLES[f"duckdb/intake_{name}"].names)
    with lake.asking() as ask:
        assert ask("SELECT prediction_id, model_version FROM intake.intake_predictions") == [("kept", None)]
