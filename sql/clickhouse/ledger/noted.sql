-- What the ledger says of the partitions of one table; one without rows holds nothing any more.
SELECT partition, rows, bytes, content_hash, written_at
FROM write_ledger FINAL
WHERE table_name = {table_name:String} AND (hash_version = {hash_version:String} OR {any_version:Bool}) AND rows > 0
