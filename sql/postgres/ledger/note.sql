-- Note what one partition holds now.
INSERT INTO ledger.writes (
    store, table_name, partition, rows, bytes, content_hash, hash_version, written_at, run_id
)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
