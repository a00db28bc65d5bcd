-- What the ledger says of the partitions of one table.
SELECT "partition", rows, bytes, content_hash, written_at
FROM lake.ledger.writes
WHERE table_name = $table_name
QUALIFY row_number() OVER (PARTITION BY "partition" ORDER BY sequence DESC) = 1
AND (hash_version = $hash_version OR $any_version) AND rows > 0
