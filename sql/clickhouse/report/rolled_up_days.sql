-- One model by day of [start, end) as the daily rollup has it, for days whose events are no longer kept. How many of the
-- evaluations told an accuracy is all of them, as far as one can tell, and how many answers they were of nobody knows.
SELECT
    toDate(day) AS day,
    toInt64(evaluation_count) AS evaluation_count,
    toInt64(request_count) AS request_count,
    if(avg_accuracy IS NULL, 0, toInt64(evaluation_count)) AS accuracy_count,
    CAST(NULL AS Nullable(Int64)) AS answer_count,
    avg_accuracy,
    std_accuracy,
    avg_f1_score,
    p50_inference_time_ms,
    p95_inference_time_ms,
    p99_inference_time_ms
FROM performance_daily
WHERE model_name = {model_name:String}
    AND performance_daily.day >= toDate32(fromUnixTimestamp64Micro({start_us:Int64}, 'UTC'))
    AND performance_daily.day < toDate32(fromUnixTimestamp64Micro({end_us:Int64}, 'UTC'))
ORDER BY day
