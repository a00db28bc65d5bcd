-- Latency by model and day of [start, end), for the models with the most events. Days that are being built are of the
-- events, those before them of the daily rollup. Quantiles as in performance_hourly.sql.
WITH timed AS (
    SELECT
        model_name,
        toDate(day) AS date,
        evaluation_count + request_count AS events,
        p50_inference_time_ms AS p50,
        p95_inference_time_ms AS p95
    FROM performance_daily
    WHERE day >= toDate32(fromUnixTimestamp64Micro({start_us:Int64}, 'UTC'))
        AND day < toDate32(fromUnixTimestamp64Micro({built_us:Int64}, 'UTC'))
        AND p50_inference_time_ms IS NOT NULL
    UNION ALL
    SELECT
        model_name,
        toDate(timestamp, 'UTC') AS date,
        toInt64(count()),
        quantileExactInclusive(0.5)(inference_time_ms),
        quantileExactInclusive(0.95)(inference_time_ms)
    FROM ml_model_performance
    WHERE timestamp >= fromUnixTimestamp64Micro({built_us:Int64}, 'UTC')
        AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
        AND inference_time_ms IS NOT NULL
    GROUP BY model_name, date
)
SELECT model_name, date AS day, p50 AS p50_inference_time_ms, p95 AS p95_inference_time_ms
FROM timed
WHERE model_name IN (
    SELECT model_name FROM timed GROUP BY model_name ORDER BY sum(events) DESC, model_name LIMIT {lines:UInt8}
)
ORDER BY model_name, day
