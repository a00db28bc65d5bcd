-- Each metric of the runs of the days [$start, $end) over all its points, whatever their own day. What a run reported
-- of itself is its last value, as in ml_experiments; where its history does not end so, that is one more point,
-- without a step. Keys that no index of PostgreSQL holds have no row.
WITH built AS (
    SELECT * FROM raw.raw_runs WHERE created_at >= $start AND created_at < $end
),
history AS (
    SELECT
        run_id,
        key,
        arg_max(value, (step, timestamp, value)) AS last,
        min(value) FILTER (NOT isnan(value)) AS min,
        max(value) FILTER (NOT isnan(value)) AS max,
        -- Ordered, so that the sum runs the same way each time and its last bits agree. Infinities of both signs have
        -- none.
        if(
            bool_or(value = 'inf'::DOUBLE) AND bool_or(value = '-inf'::DOUBLE),
            NULL,
            avg(value ORDER BY step, timestamp, value) FILTER (NOT isnan(value))
        ) AS mean,
        count(*) FILTER (NOT isnan(value)) AS count,
        max(step) AS last_step,
        min(timestamp) FILTER (isnan(value)) AS first_nan_at
    FROM raw.raw_metrics
    WHERE run_id IN (SELECT run_id FROM built) AND value IS NOT NULL
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
        history.* EXCLUDE (run_id, key),
        reported.value AS reported,
        CASE WHEN reported.value IS DISTINCT FROM history.last AND NOT isnan(reported.value) THEN reported.value END
            AS added
    FROM history FULL JOIN (FROM reported WHERE value IS NOT NULL) AS reported USING (run_id, key)
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
