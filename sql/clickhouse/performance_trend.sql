-- One model by hour over a window, from the events themselves; see performance_hourly.sql for the rules.
SELECT
    toDateTime64(toStartOfHour(timestamp), 6, 'UTC') AS hour,
    model_name,
    toInt64(countIf(kind = 'evaluation')) AS evaluation_count,
    toInt64(countIf(kind = 'inference')) AS request_count,
    avg(accuracy) AS avg_accuracy,
    avg(inference_time_ms) AS avg_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.95)(inference_time_ms), NULL) AS p95_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.99)(inference_time_ms), NULL) AS p99_inference_time_ms
FROM ml_model_performance
WHERE model_name = {model_name:String}
    AND timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
GROUP BY hour, model_name
ORDER BY hour DESC
