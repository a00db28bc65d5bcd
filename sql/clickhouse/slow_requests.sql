-- The slowest requests of [start, end), of one model or of all, each with its place among those of its model. Requests of
-- a model that were slower than one in the answer are in it as well, so a rank within the answer is one within the window.
WITH
    requests AS (
        SELECT
            event_id, timestamp, model_name, model_version, run_id, dataset, inference_time_ms, batch_size, memory_usage_mb
        FROM ml_model_performance
        WHERE kind = 'inference'
            AND inference_time_ms IS NOT NULL
            AND timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
            AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
            AND ({model_name:String} = '' OR model_name = {model_name:String})
    ),
    slowest AS (
        SELECT * FROM requests ORDER BY inference_time_ms DESC, timestamp, event_id LIMIT {limit:UInt32}
    ),
    models AS (
        SELECT
            model_name,
            toInt64(count()) AS request_count,
            quantileExactInclusive(0.5)(inference_time_ms) AS median_ms
        FROM requests
        WHERE model_name IN (SELECT model_name FROM slowest)
        GROUP BY model_name
    )
SELECT
    event_id,
    timestamp,
    model_name,
    model_version,
    run_id,
    dataset,
    inference_time_ms,
    batch_size,
    memory_usage_mb,
    100 * (1 - (rank() OVER (PARTITION BY model_name ORDER BY inference_time_ms DESC) - 1) / request_count) AS percentile,
    if(median_ms > 0, inference_time_ms / median_ms, NULL) AS times_median,
    request_count
FROM slowest
INNER JOIN models USING (model_name)
ORDER BY inference_time_ms DESC, timestamp, event_id
