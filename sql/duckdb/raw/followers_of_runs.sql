-- Days outside [$first, $last] with runs that look back on an outcome which this rebuild of raw_runs changes:
-- those of the same model that started after it. In the place of the braces stands the query of the rows to
-- come.
WITH standing AS (
    SELECT run_id, model_name, completed_at, dataset, experiment, metrics::VARCHAR AS metrics
    FROM raw.raw_runs
    WHERE created_at::DATE BETWEEN $first AND $last AND status = 'completed' AND completed_at IS NOT NULL
),
coming AS (
    SELECT run_id, model_name, completed_at, dataset, experiment, metrics::VARCHAR AS metrics
    FROM ({arriving})
    WHERE status = 'completed' AND completed_at IS NOT NULL
),
changed AS (
    SELECT model_name, min(completed_at) AS since
    FROM ((FROM standing EXCEPT FROM coming) UNION ALL (FROM coming EXCEPT FROM standing))
    GROUP BY model_name
)
SELECT DISTINCT run.created_at::DATE AS day
FROM raw.raw_runs AS run
JOIN changed USING (model_name)
WHERE run.created_at::DATE NOT BETWEEN $first AND $last AND run.created_at > changed.since
