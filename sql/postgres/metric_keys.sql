-- Every key of a metric of the completed runs: what is to be ranked before they can be judged.
SELECT DISTINCT jsonb_object_keys(metrics)
FROM ml_experiments
WHERE status = 'completed' AND jsonb_typeof(metrics) = 'object'
