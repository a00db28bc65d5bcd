-- What ml_run_params must hold of the runs {rows}: each parameter that has a value, if an index of PostgreSQL holds its
-- key.
WITH entries AS (
    SELECT run_id, unnest(map_entries(from_json(parameters, '"MAP(VARCHAR, JSON)"'))) AS entry
    FROM {rows}
    WHERE json_type(parameters) = 'OBJECT'
)
SELECT run_id, entry.key AS key, entry.value ->> '$' AS text
FROM entries
WHERE entry.value IS NOT NULL AND strlen(entry.key) <= 2000 AND strlen(run_id) + strlen(entry.key) <= 2500
