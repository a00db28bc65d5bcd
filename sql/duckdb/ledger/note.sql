-- Note what some partitions hold now.
INSERT INTO lake.ledger.writes (
    table_name, "partition", sequence, rows, bytes, content_hash, hash_version, written_at, run_id
)
SELECT
    table_name, "partition", sequence, rows, bytes, content_hash, hash_version, written_at, run_id
FROM ledger_entries
