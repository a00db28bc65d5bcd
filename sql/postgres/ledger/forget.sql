-- Forget some partitions of one table; all of them if none is named.
DELETE FROM ledger.writes
WHERE store = %(store)s AND table_name = %(table_name)s
    AND (%(partitions)s::text[] IS NULL OR partition = ANY(%(partitions)s))
