-- Partitions that hold rows which will move into others, each with a key of one.
SELECT old.partition, min(key)
FROM ledger.chroma_manifest AS old
JOIN live USING (key)
WHERE old.collection = %(collection)s AND old.partition <> live.partition
GROUP BY 1
ORDER BY 1
