-- A row if somebody holds another version than the last one; see hold.sql.
SELECT
FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = hashtext('ml-assets readers of ' || %(collection)s)::oid
    AND objid <> coalesce((SELECT version FROM ledger.chroma_versions WHERE collection = %(collection)s), 0)::oid
LIMIT 1
