-- What the ledger says of the partitions of one table.
SELECT partition, rows, bytes, content_hash, written_at
FROM ml_assets_writes
WHERE table_name = :table_name AND (hash_version = :hash_version OR :any_version)
