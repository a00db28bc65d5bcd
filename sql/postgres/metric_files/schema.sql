-- Which files of the lake's raw_metrics hold points of which runs. A file never changes, so what is noted of it stays
-- true; rows that were deleted from it since make it hold less.
CREATE SCHEMA IF NOT EXISTS ledger;

CREATE TABLE IF NOT EXISTS ledger.metric_files (
    file_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    path text NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS ledger.metric_file_runs (
    run_id text NOT NULL,
    file_id bigint NOT NULL REFERENCES ledger.metric_files ON DELETE CASCADE,
    PRIMARY KEY (run_id, file_id)
);
CREATE INDEX IF NOT EXISTS metric_file_runs_by_file ON ledger.metric_file_runs (file_id);
