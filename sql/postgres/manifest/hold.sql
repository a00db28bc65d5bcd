-- The collection's version, with a shared lock on it until the transaction ends. The lock's key is two numbers:
-- one for the readers of the collection, and the version.
SELECT version, pg_advisory_xact_lock_shared(hashtext('ml-assets readers of ' || %(collection)s), version)
FROM (
    SELECT coalesce((SELECT version FROM ledger.chroma_versions WHERE collection = %(collection)s), 0)
) AS now (version)
