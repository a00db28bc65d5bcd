-- Runs of the days [$start, $end) with the last value of every metric: what the run itself reported, filled
-- up from its metric history. JSON has no NaN and no infinities: they stand there as strings, as in MLflow.
WITH built AS (
    SELECT * FROM raw.raw_runs WHERE created_at >= $start AND created_at < $end
),
last_values AS (
    SELECT run_id, key, arg_max(value, (step, timestamp, value)) AS value
    FROM raw.raw_metrics
    WHERE run_id IN (SELECT run_id FROM built) AND value IS NOT NULL
    GROUP BY run_id, key
),
history AS (
    SELECT
        run_id,
        json_group_object(
            key,
            CASE
                WHEN isfinite(value) THEN to_json(value)
                WHEN isnan(value) THEN to_json('NaN')
                ELSE to_json(if(value > 0, 'Infinity', '-Infinity'))
            END
        ) AS metrics
    FROM last_values
    GROUP BY run_id
)
SELECT
    built.run_id AS id,
    built.* EXCLUDE (run_id, metrics),
    CASE
        WHEN history.metrics IS NULL THEN built.metrics
        ELSE json_merge_patch(history.metrics, coalesce(built.metrics, '{}'::JSON))
    END AS metrics,
    'graph' AS origin
FROM built LEFT JOIN history USING (run_id)
