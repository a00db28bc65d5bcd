-- Some live entries with their vectors, the same ones each time, from all over the collection.
SELECT id, vector
FROM ledger.chroma_manifest
WHERE collection = %(collection)s
ORDER BY md5(key)
LIMIT %(entries)s
