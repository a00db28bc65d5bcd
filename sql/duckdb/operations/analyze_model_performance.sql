-- One experiment's models by hour. Evaluations and requests are counted apart, runs are runs and not rows,
-- and the deviation of a single value is unknown, not 0.
SELECT
    model_name,
    date_trunc('hour', timestamp) AS hour,
    avg(accuracy) AS avg_accuracy,
    stddev_samp(accuracy) AS std_accuracy,
    count(DISTINCT run_id) AS run_count,
    count(*) FILTER (kind = 'evaluation') AS evaluation_count,
    count(*) FILTER (kind = 'inference') AS request_count,
    quantile_cont(inference_time_ms, 0.95) AS p95_inference_time_ms
FROM features.model_performance_events
WHERE experiment = $experiment
GROUP BY model_name, hour
ORDER BY hour DESC, model_name
