-- Each day of [start, end): mean accuracy, and latency over all models. Quantiles as in performance_hourly.sql.
SELECT
    toDate(timestamp, 'UTC') AS day,
    avg(accuracy) AS mean_accuracy,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.5)(inference_time_ms), NULL) AS p50_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.95)(inference_time_ms), NULL) AS p95_inference_time_ms
FROM ml_model_performance
WHERE timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
GROUP BY day
ORDER BY day
