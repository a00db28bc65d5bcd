-- Exact hourly rollups of the days [start, end). Evaluations and requests are counted apart, quantiles are
-- exact and interpolated as numpy and DuckDB do, and the deviation of a single value is unknown, not 0.
SELECT
    toDateTime64(toStartOfHour(timestamp), 6, 'UTC') AS hour,
    model_name,
    toInt64(countIf(kind = 'evaluation')) AS evaluation_count,
    toInt64(countIf(kind = 'inference')) AS request_count,
    toInt64(uniqExact(run_id)) AS run_count,
    avg(accuracy) AS avg_accuracy,
    if(count(accuracy) > 1, stddevSampStable(accuracy), NULL) AS std_accuracy,
    avg(f1_score) AS avg_f1_score,
    avg(inference_time_ms) AS avg_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.5)(inference_time_ms), NULL) AS p50_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.95)(inference_time_ms), NULL) AS p95_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.99)(inference_time_ms), NULL) AS p99_inference_time_ms,
    max(memory_usage_mb) AS max_memory_usage_mb,
    max(timestamp) AS last_event_at
FROM ml_model_performance
WHERE timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
GROUP BY hour, model_name
ORDER BY hour, model_name
