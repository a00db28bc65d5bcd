-- The live entries with their vectors, of the partitions between two names, or of all if the first is null.
SELECT id, vector
FROM ledger.chroma_manifest
WHERE collection = %(collection)s
    AND (%(first)s::text IS NULL OR (partition >= %(first)s AND partition < %(end)s))
ORDER BY key
