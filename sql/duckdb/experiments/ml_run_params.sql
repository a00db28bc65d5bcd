-- Each hyper-parameter of the runs of the days [$start, $end): its text, and the number that a text of the form
-- $number is. Keys that no index of PostgreSQL holds have no row.
WITH entries AS (
    SELECT run_id, created_at, unnest(map_entries(from_json(parameters, '"MAP(VARCHAR, JSON)"'))) AS entry
    FROM raw.raw_runs
    WHERE created_at >= $start AND created_at < $end AND json_type(parameters) = 'OBJECT'
),
texts AS (
    SELECT
        run_id,
        entry.key AS key,
        if(json_type(entry.value) = 'VARCHAR', entry.value ->> '$', entry.value::VARCHAR) AS text,
        created_at
    FROM entries
    WHERE entry.value IS NOT NULL -- which null is not
)
SELECT
    run_id,
    key,
    text,
    CASE WHEN regexp_full_match(text, $number) THEN TRY_CAST(text AS DOUBLE) END AS number,
    created_at,
    'graph' AS origin
FROM texts
WHERE strlen(key) <= 2000 AND strlen(run_id) + strlen(key) <= 2500
