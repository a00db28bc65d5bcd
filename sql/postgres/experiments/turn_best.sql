-- The best of each metric of some experiments, by the direction that it has now.
UPDATE ml_run_metrics
SET best = CASE WHEN key = ANY(%(falling)s) THEN min ELSE max END
WHERE run_id = ANY(%(ids)s)
