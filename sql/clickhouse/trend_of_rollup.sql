-- One model over [start, end), a row an hour or a day, as {rollup} has it. It takes few rows of many small parts: one
-- thread, reading all columns at once, sent as they are, takes half the time of what the engine chooses (measured).
SELECT
    toDateTime64({time}, 6, 'UTC') AS bucket,
    '' AS slice,
    evaluation_count,
    request_count,
    avg_accuracy,
    avg_f1_score,
    avg_inference_time_ms,
    p50_inference_time_ms,
    p95_inference_time_ms,
    p99_inference_time_ms,
    max_memory_usage_mb,
    std_accuracy,
    last_event_at AS until
FROM {rollup}
WHERE model_name = {model_name:String}
    AND {time} >= {type}(fromUnixTimestamp64Micro({start_us:Int64}, 'UTC'))
    AND {time} < {type}(fromUnixTimestamp64Micro({end_us:Int64}, 'UTC'))
ORDER BY bucket
SETTINGS
    max_threads = 1,
    local_filesystem_read_method = 'pread',
    optimize_move_to_prewhere = 0,
    output_format_arrow_compression_method = 'none'
