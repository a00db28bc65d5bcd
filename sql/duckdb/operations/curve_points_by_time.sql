-- Points of the curves in `asked` by the seconds since their run began.
SELECT
    curve,
    row_number() OVER (PARTITION BY curve ORDER BY timestamp, step, value) AS place,
    epoch_us(timestamp - began) / 1e6 AS x,
    value
FROM raw.raw_metrics JOIN asked USING (run_id, key)
WHERE value IS NOT NULL AND {files}
