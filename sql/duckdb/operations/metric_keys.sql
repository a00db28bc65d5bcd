-- Every key of a metric that the runs of the days [$start, $end), and the other runs of their models, have reported or
-- logged: what is to be ranked before the runs can be judged.
WITH looked AS (
    SELECT run_id, metrics
    FROM raw.raw_runs
    WHERE (created_at >= $start AND created_at < $end)
        OR model_name IN (SELECT model_name FROM raw.raw_runs WHERE created_at >= $start AND created_at < $end)
)
SELECT DISTINCT key FROM raw.raw_metrics WHERE run_id IN (SELECT run_id FROM looked)
UNION
SELECT DISTINCT unnest(json_keys(metrics)) FROM looked WHERE json_type(metrics) = 'OBJECT'
