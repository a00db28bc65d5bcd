-- The ids of the live entries of some keys.
SELECT id
FROM ledger.chroma_manifest
WHERE collection = %(collection)s AND key = ANY(%(keys)s)
