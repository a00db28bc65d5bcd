-- Days outside [$first, $last] with runs that look back on an accuracy which this rebuild of raw_metrics
-- changes: those of the same model that started after its run had ended. In the place of the braces stands
-- the query of the rows to come.
WITH standing AS (
    SELECT run_id, step, timestamp, value
    FROM raw.raw_metrics
    WHERE timestamp::DATE BETWEEN $first AND $last AND key = 'accuracy'
),
coming AS (
    SELECT run_id, step, timestamp, value
    FROM ({arriving})
    WHERE key = 'accuracy'
),
changed AS (
    SELECT run.model_name, min(run.completed_at) AS since
    FROM raw.raw_runs AS run
    WHERE run.status = 'completed' AND run.run_id IN (
        SELECT run_id
        FROM ((FROM standing EXCEPT FROM coming) UNION ALL (FROM coming EXCEPT FROM standing))
    )
    GROUP BY run.model_name
)
SELECT DISTINCT run.created_at::DATE AS day
FROM raw.raw_runs AS run
JOIN changed USING (model_name)
WHERE run.created_at::DATE NOT BETWEEN $first AND $last AND run.created_at > changed.since
