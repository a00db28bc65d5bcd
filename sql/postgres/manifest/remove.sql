-- Take out of some partitions, or of all if they are null, the keys that are not staged.
DELETE FROM ledger.chroma_manifest AS old
WHERE collection = %(collection)s
    AND (%(partitions)s::text[] IS NULL OR partition = ANY(%(partitions)s))
    AND NOT EXISTS (SELECT FROM live WHERE live.key = old.key)
