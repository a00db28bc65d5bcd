-- How many entries are live.
SELECT count(*)
FROM ledger.chroma_manifest
WHERE collection = %(collection)s
