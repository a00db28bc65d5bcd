-- Points of the curves in `asked` by the value that the metric $axis has at the same step; where it has none there is
-- no point. Of a step that was logged again the newest value stands.
WITH newest AS (
    SELECT run_id, key, step, value
    FROM raw.raw_metrics
    WHERE run_id IN (SELECT run_id FROM asked) AND value IS NOT NULL
        AND {files} AND (key = $axis OR key IN (SELECT key FROM asked))
    WINDOW history AS (PARTITION BY run_id, key ORDER BY step, timestamp, value)
    QUALIFY lead(step) OVER history IS DISTINCT FROM step
)
SELECT
    curve,
    row_number() OVER (PARTITION BY curve ORDER BY axis.value, point.step) AS place,
    axis.value AS x,
    point.value
FROM newest AS point
JOIN asked USING (run_id, key)
JOIN newest AS axis ON axis.run_id = point.run_id AND axis.step = point.step
WHERE axis.key = $axis AND isfinite(axis.value)
