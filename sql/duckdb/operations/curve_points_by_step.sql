-- Points of the curves in `asked` by step. Of a step that was logged again, as by a run that was resumed, the newest
-- value stands.
SELECT curve, row_number() OVER history AS place, step::DOUBLE AS x, value
FROM raw.raw_metrics JOIN asked USING (run_id, key)
WHERE value IS NOT NULL AND {files}
WINDOW history AS (PARTITION BY curve ORDER BY step, timestamp, value)
QUALIFY lead(step) OVER history IS DISTINCT FROM step
