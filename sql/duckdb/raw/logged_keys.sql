-- Which keys of metrics completed runs have, by what stands in raw_metrics on the days [$first, $last] and by what will
-- stand there; each set of keys once for a dataset and an experiment.
WITH ended AS (
    SELECT run_id, dataset, experiment, completed_at
    FROM raw.raw_runs
    WHERE status = 'completed' AND completed_at IS NOT NULL AND model_name IS NOT NULL
),
present AS (
    SELECT DISTINCT point.run_id, ended.dataset, ended.experiment, point.key
    FROM (
        SELECT run_id, key, timestamp
        FROM raw.raw_metrics
        WHERE timestamp >= $first::TIMESTAMPTZ
            AND timestamp < ($last::DATE + 1)::TIMESTAMPTZ
            AND value IS NOT NULL
        UNION ALL
        SELECT run_id, key, timestamp
        FROM intake.intake_metrics
        WHERE day BETWEEN $first AND $last
            AND quarantine_reason IS NULL
            AND value IS NOT NULL
            AND unit_hash IN (SELECT unit_hash FROM live)
    ) AS point
    JOIN ended ON point.run_id = ended.run_id AND point.timestamp <= ended.completed_at
)
SELECT DISTINCT dataset, experiment, keys
FROM (SELECT dataset, experiment, list(key ORDER BY key) AS keys FROM present GROUP BY run_id, dataset, experiment)
