-- Name no entry of the collection any more.
DELETE FROM ledger.chroma_manifest
WHERE collection = %(collection)s
