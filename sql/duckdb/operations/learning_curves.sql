-- Learning curves of a few runs of the days [$start, $end): the last run of each model, longest curves first,
-- at most $runs of them. What is read stays small whatever the size of the tables: the curves of at most 50
-- runs, and of a curve at most 200 points, each the mean of as many steps as it takes.
WITH candidates AS (
    SELECT run_id, coalesce(model_name, name, run_id) AS run
    FROM raw.raw_runs
    WHERE created_at >= $start AND created_at < $end
    QUALIFY row_number() OVER (PARTITION BY coalesce(model_name, name, run_id) ORDER BY created_at DESC, run_id) = 1
    ORDER BY created_at DESC, run_id
    LIMIT 50
),
points AS (
    SELECT
        candidates.run,
        metric.key,
        metric.step,
        metric.value,
        row_number() OVER curve - 1 AS place,
        count(*) OVER (PARTITION BY metric.run_id, metric.key) AS length
    FROM raw.raw_metrics AS metric
    JOIN candidates USING (run_id)
    WHERE metric.key IN ('loss', 'val_loss') AND isfinite(metric.value) AND metric.timestamp >= $start
    WINDOW curve AS (PARTITION BY metric.run_id, metric.key ORDER BY metric.step, metric.timestamp, metric.value)
),
shown AS (
    SELECT run FROM points WHERE key = 'loss' AND length > 1 GROUP BY run ORDER BY max(length) DESC, run LIMIT $runs
)
SELECT run, key, min(step) AS step, avg(value) AS value
FROM points
WHERE run IN (SELECT run FROM shown)
GROUP BY run, key, place * 200 // greatest(length, 200)
ORDER BY run, key, step
