-- Each metric of the runs of the days [$start, $end) over all its points, whatever their own day. What a run reported
-- of itself is its last value, as in ml_experiments; where its history does not end so, that is one more point,
-- without a step. Keys that no index of PostgreSQL holds have no row.
WITH built AS (
    SELECT * FROM raw.raw_runs WHERE created_at >= $start AND created_at < $end
),
logged AS NOT MATERIALIZED (
    SELECT * FROM raw.raw_metrics WHERE run_id IN (SELECT run_id FROM built) AND value IS NOT NULL
),
history AS (
    SELECT
        run_id,
        key,
        arg_max(value, (step, timestamp, value)) AS last,
        min(value) FILTER (NOT isnan(value)) AS min,
        max(value) FILTER (NOT isnan(value)) AS max,
        count(*) FILTER (NOT isnan(value)) AS count,
        max(step) AS last_step,
        min(timestamp) FILTER (isnan(value)) AS first_nan_at,
        pow(2, floor(log2(max(abs(value)) FILTER (isfinite(value) AND value <> 0)))) AS unit
    FROM logged
    GROUP BY run_id, key
),
-- As integers, whose sum has the same last bits in whatever order the rows come. To sort them takes five times as long.
means AS (
    SELECT
        run_id,
        key,
        sum((logged.value / history.unit * pow(2, 60))::HUGEINT) / pow(2, 60) / count(*) * any_value(history.unit) AS mean
    FROM logged JOIN history USING (run_id, key)
    WHERE isfinite(logged.value)
    GROUP BY run_id, key
),
-- Not by json_each, whose time grows with the square of the number of keys.
entries AS (
    SELECT run_id, unnest(map_entries(from_json(metrics, '"MAP(VARCHAR, JSON)"'))) AS entry
    FROM built
    WHERE json_type(metrics) = 'OBJECT'
),
reported AS (
    SELECT run_id, entry.key AS key, TRY_CAST(entry.value ->> '$' AS DOUBLE) AS value FROM entries
),
points AS (
    SELECT
        run_id,
        key,
        history.* EXCLUDE (run_id, key, unit),
        CASE
            WHEN history.max = 'inf'::DOUBLE THEN if(history.min = '-inf'::DOUBLE, NULL, history.max)
            WHEN history.min = '-inf'::DOUBLE THEN history.min
            ELSE coalesce(means.mean, history.min) -- which all are 0 then
        END AS mean,
        reported.value AS reported,
        CASE WHEN reported.value IS DISTINCT FROM history.last AND NOT isnan(reported.value) THEN reported.value END
            AS added
    FROM history
    LEFT JOIN means USING (run_id, key)
    FULL JOIN (FROM reported WHERE value IS NOT NULL) AS reported USING (run_id, key)
)
SELECT
    run_id,
    points.key,
    coalesce(points.reported, points.last) AS last,
    least(points.min, points.added) AS min,
    greatest(points.max, points.added) AS max,
    CASE
        WHEN points.added IS NULL THEN points.mean
        WHEN coalesce(points.count, 0) = 0 THEN points.added
        WHEN isinf(points.mean) THEN if(isfinite(points.added) OR points.added = points.mean, points.mean, NULL)
        ELSE points.mean + (points.added / (points.count + 1) - points.mean / (points.count + 1))
    END AS mean,
    coalesce(points.count, 0) + (points.added IS NOT NULL)::BIGINT AS count,
    points.last_step,
    coalesce(
        points.first_nan_at,
        CASE WHEN isnan(points.reported) THEN coalesce(built.completed_at, built.created_at) END
    ) AS first_nan_at,
    built.created_at,
    'graph' AS origin
FROM points JOIN built USING (run_id)
WHERE strlen(points.key) <= 2000 AND strlen(run_id) + strlen(points.key) <= 2500
