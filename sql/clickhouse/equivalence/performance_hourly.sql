-- The numbers of performance_hourly for the days [start, end), computed of the events by this engine; the sums are those
-- of integers. See sql/duckdb/equivalence/performance_hourly.sql.
SELECT
    toDateTime64(toStartOfHour(timestamp), 6, 'UTC') AS hour,
    model_name,
    toInt64(countIf(kind = 'evaluation')) AS evaluation_count,
    toInt64(countIf(kind = 'inference')) AS request_count,
    toInt64(uniqExact(run_id)) AS run_count,
    toInt64(count(accuracy)) AS accuracy_count,
    toString(ifNull(sum(toInt128(trunc(accuracy * 1152921504606846976))), 0)) AS accuracy_sum,
    toInt64(count(f1_score)) AS f1_score_count,
    toString(ifNull(sum(toInt128(trunc(f1_score * 1152921504606846976))), 0)) AS f1_score_sum,
    toInt64(count(inference_time_ms)) AS inference_time_count,
    toString(
        ifNull(sumIf(toInt128(trunc(least(inference_time_ms, 1e9) * 1073741824)), inference_time_ms IS NOT NULL), 0)
    ) AS inference_time_sum,
    max(memory_usage_mb) AS max_memory_usage_mb,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.5)(inference_time_ms), NULL) AS p50_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.95)(inference_time_ms), NULL) AS p95_inference_time_ms,
    if(count(inference_time_ms) > 0, quantileExactInclusive(0.99)(inference_time_ms), NULL) AS p99_inference_time_ms
FROM ml_model_performance
WHERE timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
GROUP BY hour, model_name
