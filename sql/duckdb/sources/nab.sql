-- stream: performance
-- glob: nab/*.csv
--
-- Series of the Numenta Anomaly Benchmark: a time and a value, such as CPU load or requests. Each series is
-- taken for the latency of a service of its name, so that trends and alarms have real series to look at. The
-- stamps have no zone and are UTC.
SELECT
    concat_ws('/', 'nab', parse_filename(filename, true), timestamp) AS event_id,
    'inference' AS kind,
    timestamp || 'Z' AS timestamp,
    parse_filename(filename, true) AS model_name,
    'nab' AS experiment,
    value AS inference_time_ms
FROM read_csv($file, all_varchar = true, header = true, filename = true)
