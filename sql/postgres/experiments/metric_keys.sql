-- The names of all metrics, each by one look into an index: there may be millions of rows of each.
WITH RECURSIVE keys AS (
    (SELECT key FROM ml_run_metrics ORDER BY key LIMIT 1)
    UNION ALL
    SELECT (SELECT further.key FROM ml_run_metrics AS further WHERE further.key > keys.key ORDER BY further.key LIMIT 1)
    FROM keys
    WHERE keys.key IS NOT NULL
)
SELECT key FROM keys WHERE key IS NOT NULL LIMIT 10000
