-- The live entry of each key.
SELECT key, id
FROM ledger.chroma_manifest
WHERE collection = %(collection)s
ORDER BY key
