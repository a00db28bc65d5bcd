-- Those of some entries that are live, looked up by the keys that they are of.
SELECT id
FROM ledger.chroma_manifest
WHERE collection = %(collection)s AND key = ANY(%(keys)s) AND id = ANY(%(ids)s)
