-- Latency and memory of each model by the hours in which it was asked. A quantile counts in hours with requests enough to
-- have a tail: one in twenty is the slowest of twenty.
SELECT
    model_name,
    toUnixTimestamp64Micro(hour) AS hour_us,
    avg_inference_time_ms,
    if(request_count >= 2, p50_inference_time_ms, NULL) AS p50_inference_time_ms,
    if(request_count >= 20, p95_inference_time_ms, NULL) AS p95_inference_time_ms,
    if(request_count >= 100, p99_inference_time_ms, NULL) AS p99_inference_time_ms,
    max_memory_usage_mb
FROM performance_hourly
WHERE request_count > 0
ORDER BY model_name, hour
