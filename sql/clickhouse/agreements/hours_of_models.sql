-- The hours of the events {rows}, with what is known in each.
SELECT
    toStartOfHour(timestamp) AS hour,
    model_name,
    count() AS events,
    avg(accuracy) AS avg_accuracy,
    avg(f1_score) AS avg_f1_score,
    avg(inference_time_ms) AS avg_inference_time_ms,
    max(memory_usage_mb) AS max_memory_usage_mb
FROM {rows}
GROUP BY hour, model_name
