-- What was written to each partition of each table, and by which contract each table was written last. Entries are
-- only ever added: the one with the highest sequence counts.
CREATE TABLE IF NOT EXISTS write_ledger (
    table_name String,
    partition String,
    sequence Int64,
    rows Int64,
    bytes Int64,
    content_hash String,
    hash_version String,
    written_at DateTime64(6, 'UTC'),
    run_id Nullable(String)
)
ENGINE = ReplacingMergeTree(sequence) ORDER BY (table_name, partition);

CREATE TABLE IF NOT EXISTS write_contracts (
    asset String,
    contract String,
    sequence Int64
)
ENGINE = ReplacingMergeTree(sequence) ORDER BY asset;

-- A former version's ledger does not name the run.
ALTER TABLE write_ledger ADD COLUMN IF NOT EXISTS run_id Nullable(String);
