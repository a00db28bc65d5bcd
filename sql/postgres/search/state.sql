-- What tells one state of a table from another where the ledger does not know it: somebody else wrote it.
SELECT count(*), sum(hashtextextended({key} || ' ' || content_hash, 0)::numeric) FROM {table}
