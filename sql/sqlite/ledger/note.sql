-- Note what one partition holds now.
INSERT INTO ml_assets_writes (
    table_name, partition, rows, bytes, content_hash, hash_version, written_at, run_id
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
