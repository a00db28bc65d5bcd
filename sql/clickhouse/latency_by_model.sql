-- Latency by model and day of [start, end), for the models with the most timed events. Quantiles as in
-- performance_hourly.sql.
WITH timed AS (
    SELECT model_name, toDate(timestamp, 'UTC') AS day, inference_time_ms
    FROM ml_model_performance
    WHERE timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
        AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
        AND inference_time_ms IS NOT NULL
)
SELECT
    model_name,
    day,
    quantileExactInclusive(0.5)(inference_time_ms) AS p50_inference_time_ms,
    quantileExactInclusive(0.95)(inference_time_ms) AS p95_inference_time_ms
FROM timed
WHERE model_name IN (SELECT model_name FROM timed GROUP BY model_name ORDER BY count() DESC, model_name LIMIT {lines:UInt8})
GROUP BY model_name, day
ORDER BY model_name, day
