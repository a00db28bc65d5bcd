-- The tables that this user may vacuum, the largest first: bytes of each, without and with its indexes.
SELECT nspname, relname, pg_table_size(c.oid), pg_total_relation_size(c.oid)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm') AND relpersistence = 'p' AND nspname <> 'information_schema'
    AND pg_has_role(relowner, 'USAGE')
ORDER BY pg_total_relation_size(c.oid) DESC, nspname, relname
