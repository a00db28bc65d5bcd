-- What lib/run_health.py judges of the runs in `asked`: a row a run and metric, of its values in the order in which they were
-- logged. Times between points of one moment are none, and steps that go back are a resumed run's: neither is a speed.
WITH logged AS (
    SELECT
        run_id,
        key,
        step::DOUBLE AS step,
        timestamp,
        value,
        CASE WHEN isfinite(value) THEN value END AS number,
        row_number() OVER history AS place,
        count(*) OVER (PARTITION BY run_id, key) AS points,
        (step::DOUBLE - lag(step) OVER history)
            / nullif(epoch_us(timestamp) - lag(epoch_us(timestamp)) OVER history, 0) * 1e6 AS speed
    FROM raw.raw_metrics
    WHERE run_id IN (SELECT run_id FROM asked) AND {files} AND value IS NOT NULL
    WINDOW history AS (PARTITION BY run_id, key ORDER BY timestamp, step, value)
),
placed AS (
    SELECT
        *,
        place * 2 > points AS late,
        place * 4 > points * 3 AS last_quarter,
        place > coalesce(max(CASE WHEN number IS NOT NULL THEN place END) OVER (PARTITION BY run_id, key), 0) AS broken
    FROM logged
)
SELECT
    run_id,
    key,
    any_value(points) AS points,
    arg_min(number, place) AS first,
    arg_max(value, place) AS last,
    median(number) FILTER (WHERE place > points - 3) AS recent,
    min(number) AS low,
    max(number) AS high,
    arg_min(timestamp, (number, place)) AS low_at,
    arg_max(timestamp, (number, -place)) FILTER (WHERE number IS NOT NULL) AS high_at,
    min(number) FILTER (WHERE NOT late) AS early_low,
    max(number) FILTER (WHERE NOT late) AS early_high,
    min(number) FILTER (WHERE late) AS late_low,
    max(number) FILTER (WHERE late) AS late_high,
    min(timestamp) FILTER (WHERE late) AS half_at,
    max(timestamp) AS last_at,
    min(timestamp) FILTER (WHERE broken) AS broken_at,
    median(speed) FILTER (WHERE speed > 0 AND NOT last_quarter) AS speed_before,
    (arg_max(step, place) - arg_max(step, place) FILTER (WHERE NOT last_quarter))
        / nullif(epoch_us(max(timestamp)) - epoch_us(max(timestamp) FILTER (WHERE NOT last_quarter)), 0) * 1e6 AS speed,
    min(timestamp) FILTER (WHERE last_quarter) AS slow_at
FROM placed
GROUP BY run_id, key
ORDER BY run_id, key
