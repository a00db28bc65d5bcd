-- Those of some entries that are live.
SELECT id, partition, vector
FROM ledger.chroma_manifest
WHERE collection = %(collection)s AND id = ANY(%(ids)s)
