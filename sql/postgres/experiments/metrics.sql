-- The rows of some metrics of one experiment.
SELECT key, last, best, min, max, mean, count, last_step, first_nan_at
FROM ml_run_metrics
WHERE run_id = %(id)s AND key = ANY(%(keys)s)
