-- One model by bucket over [start, end), from the events themselves; see performance_hourly.sql for the rules. {slice} is
-- what the events are told apart by; buckets are counted from a Monday.
SELECT
    fromUnixTimestamp64Micro(
        intDiv(toUnixTimestamp64Micro(timestamp) - {anchor_us:Int64}, {bucket_us:Int64}) * {bucket_us:Int64} + {anchor_us:Int64},
        'UTC'
    ) AS bucket,
    {slice} AS slice,
    toInt64(countIf(kind = 'evaluation')) AS evaluation_count,
    toInt64(countIf(kind = 'inference')) AS request_count,
    avg(accuracy) AS avg_accuracy,
    avg(f1_score) AS avg_f1_score,
    avg(inference_time_ms) AS avg_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.5)(inference_time_ms), NULL) AS p50_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.95)(inference_time_ms), NULL) AS p95_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.99)(inference_time_ms), NULL) AS p99_inference_time_ms,
    max(memory_usage_mb) AS max_memory_usage_mb,
    if(count(accuracy) > 1, stddevSampStable(accuracy), NULL) AS std_accuracy,
    max(timestamp) AS until
FROM ml_model_performance
WHERE model_name = {model_name:String}
    AND timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
GROUP BY bucket, slice
