-- What ml_run_metrics must hold of the runs {rows}: each metric that has a value in its history, or that the run reported,
-- if an index of PostgreSQL holds its key.
WITH runs AS (
    FROM {rows}
),
entries AS (
    SELECT run_id, unnest(map_entries(from_json(metrics, '"MAP(VARCHAR, JSON)"'))) AS entry
    FROM runs
    WHERE json_type(metrics) = 'OBJECT'
)
SELECT run_id, key, any_value(last) AS last
FROM (
    SELECT run_id, entry.key AS key, TRY_CAST(entry.value ->> '$' AS DOUBLE) AS last FROM entries
    UNION ALL
    SELECT run_id, key, value FROM raw.raw_metrics WHERE run_id IN (SELECT run_id FROM runs)
)
WHERE last IS NOT NULL AND strlen(key) <= 2000 AND strlen(run_id) + strlen(key) <= 2500
GROUP BY run_id, key
