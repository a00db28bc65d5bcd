-- The rows that performance_hourly has of the days [start, end).
SELECT
    hour,
    model_name,
    evaluation_count,
    request_count,
    run_count,
    avg_accuracy,
    std_accuracy,
    avg_f1_score,
    avg_inference_time_ms,
    p50_inference_time_ms,
    p95_inference_time_ms,
    p99_inference_time_ms,
    max_memory_usage_mb
FROM performance_hourly
WHERE hour >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC') AND hour < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
