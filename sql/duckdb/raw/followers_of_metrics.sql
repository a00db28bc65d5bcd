-- Days outside [$first, $last] with runs that look back on a metric which this rebuild of raw_metrics changes:
-- those of the same model that started after its run had ended. What counts of a metric is its last point until
-- then, and if the last one of these days stays, so does the last of all. In the place of the braces stand the
-- keys that are looked back on, and the query of the rows to come.
WITH ended AS (
    SELECT run_id, model_name, completed_at
    FROM raw.raw_runs
    WHERE status = 'completed' AND completed_at IS NOT NULL AND model_name IS NOT NULL
),
standing AS (
    SELECT point.run_id, point.key, max((point.step, point.timestamp, point.value)) AS last
    FROM raw.raw_metrics AS point
    JOIN ended ON point.run_id = ended.run_id AND point.timestamp <= ended.completed_at
    WHERE point.timestamp >= $first::TIMESTAMPTZ
        AND point.timestamp < ($last::DATE + 1)::TIMESTAMPTZ
        AND point.key IN ({keys})
        AND point.value IS NOT NULL
    GROUP BY point.run_id, point.key
),
coming AS (
    SELECT point.run_id, point.key, max((point.step, point.timestamp, point.value)) AS last
    FROM ({arriving}) AS point
    JOIN ended ON point.run_id = ended.run_id AND point.timestamp <= ended.completed_at
    WHERE point.key IN ({keys}) AND point.value IS NOT NULL
    GROUP BY point.run_id, point.key
),
changed AS (
    SELECT model_name, min(completed_at) AS since
    FROM ended
    WHERE run_id IN (
        SELECT run_id
        FROM ((FROM standing EXCEPT FROM coming) UNION ALL (FROM coming EXCEPT FROM standing))
    )
    GROUP BY model_name
)
SELECT DISTINCT run.created_at::DATE AS day
FROM raw.raw_runs AS run
JOIN changed USING (model_name)
WHERE run.created_at::DATE NOT BETWEEN $first AND $last AND run.created_at > changed.since
