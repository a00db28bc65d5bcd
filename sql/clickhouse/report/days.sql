-- One model by day of [start, end), from the events themselves; see performance_hourly.sql for the rules.
SELECT
    toDate(timestamp, 'UTC') AS day,
    toInt64(countIf(kind = 'evaluation')) AS evaluation_count,
    toInt64(countIf(kind = 'inference')) AS request_count,
    toInt64(count(accuracy)) AS accuracy_count,
    if(
        countIf(accuracy IS NOT NULL AND batch_size IS NULL) = 0, toInt64(sumIf(batch_size, accuracy IS NOT NULL)), NULL
    ) AS answer_count,
    avg(accuracy) AS avg_accuracy,
    if(count(accuracy) > 1, stddevSampStable(accuracy), NULL) AS std_accuracy,
    avg(f1_score) AS avg_f1_score,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.5)(inference_time_ms), NULL) AS p50_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.95)(inference_time_ms), NULL) AS p95_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.99)(inference_time_ms), NULL) AS p99_inference_time_ms
FROM ml_model_performance
WHERE model_name = {model_name:String}
    AND timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
GROUP BY day
ORDER BY day
