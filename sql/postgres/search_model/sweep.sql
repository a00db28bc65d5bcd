-- Forgets the vectors beside those that are served whose documents, or runs, have changed since, or are gone. What
-- is asked of the table is states.sql.
DELETE FROM search_vectors AS kept
WHERE kept.table_name = %(table)s
    AND NOT EXISTS (SELECT FROM ({states}) AS served WHERE served.owner = kept.owner AND served.state = kept.state)
