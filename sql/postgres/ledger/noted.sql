-- What the ledger says of the partitions of one table.
SELECT partition, rows, bytes, content_hash, written_at
FROM ledger.writes
WHERE store = %(store)s AND table_name = %(table_name)s
    AND (hash_version = %(hash_version)s OR %(any_version)s)
