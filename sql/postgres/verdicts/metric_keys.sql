-- Metrics that some runs have, to name the nearest one to what was asked for.
SELECT DISTINCT key
FROM
    (SELECT metrics FROM ml_experiments WHERE id = ANY(%(run_ids)s) AND jsonb_typeof(metrics) = 'object') AS run,
    jsonb_object_keys(run.metrics) AS key
