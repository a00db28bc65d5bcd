"""Writes demo_events.parquet: the performance events of a home with the demo, which tests judge regressions by.

    python ml_assets_tests/demo_events/extract.py HOME

HOME is one in which `ml-assets demo` has been run. What the graph adds to an event of its run is the dataset, which is
the first part of the names of the demo's models.
"""

import sys
from pathlib import Path

import duckdb

COLUMNS = """
    event_id, kind, timestamp::TIMESTAMPTZ AS timestamp, model_name, model_version::VARCHAR AS model_version, run_id,
    split_part(model_name, '-', 1) AS dataset, accuracy::DOUBLE AS accuracy, precision::DOUBLE AS precision,
    recall::DOUBLE AS recall, f1_score::DOUBLE AS f1_score, inference_time_ms::DOUBLE AS inference_time_ms,
    memory_usage_mb::DOUBLE AS memory_usage_mb, batch_size::BIGINT AS batch_size
"""

READERS = {".jsonl": "read_json", ".csv": "read_csv", ".parquet": "read_parquet"}

if __name__ == "__main__":
    files = sorted((Path(sys.argv[1]) / "landing" / "performance").iterdir())
    of_files = [f"SELECT {COLUMNS} FROM {READERS[file.suffix]}('{file}')" for file in files]
    target = Path(__file__).with_name("demo_events.parquet")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = f"SELECT * FROM ({' UNION ALL '.join(of_files)}) ORDER BY model_name, timestamp, event_id"
        connection.execute(f"COPY ({rows}) TO '{target}' (COMPRESSION zstd, COMPRESSION_LEVEL 19)")
