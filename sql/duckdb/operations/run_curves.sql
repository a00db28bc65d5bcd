-- Curves as a picture $points pixels wide shows them: a row a curve and pixel. The pixels of a key divide what its
-- curves span of x together. Of each pixel stand the first point and the last, the least finite value and the greatest,
-- and where the first NaN and infinities are: no spike is lost and no gap is hidden. A curve of no more than $points
-- points is there as a whole, a row a point. Points come from one of curve_points_by_*.sql.
--
-- `mean_x` is of all points of a row, `mean` of those that are finite, which are `finite` in number. `decayed` is what
-- lib/curves.py smooths by, the sum of these, each times its `decay`; null if nothing is smoothed.
WITH points AS MATERIALIZED (
    {points}
),
curves AS (
    SELECT
        curve,
        count(*) <= $points AS whole,
        min(min(x)) OVER (PARTITION BY key) AS low,
        max(max(x)) OVER (PARTITION BY key) AS high
    FROM points JOIN asked USING (curve)
    GROUP BY curve, key
),
placed AS (
    SELECT
        curve,
        place,
        x,
        value,
        CASE WHEN isfinite(value) THEN value END AS number,
        -- Halves, since the span of two large numbers may be infinite.
        coalesce(
            least(floor((x / 2 - low / 2) / nullif(high / 2 - low / 2, 0) * $points), $points - 1), 0
        )::INTEGER AS pixel,
        CASE WHEN whole THEN place ELSE 0 END AS part
    FROM points JOIN curves USING (curve)
),
parts AS (
    SELECT *, {decay} AS decay
    FROM placed
    WINDOW after AS (
        PARTITION BY curve, pixel, part ORDER BY place ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
    )
)
SELECT
    curve,
    pixel,
    min(x) AS first_x,
    arg_min(value, place) AS first,
    arg_min(x, number) AS low_x,
    min(number) AS low,
    arg_max(x, number) AS high_x,
    max(number) AS high,
    max(x) AS last_x,
    arg_max(value, place) AS last,
    min(CASE WHEN isnan(value) THEN x END) AS nan_x,
    min(CASE WHEN value = 'inf' THEN x END) AS inf_x,
    min(CASE WHEN value = '-inf' THEN x END) AS minus_inf_x,
    avg(x) AS mean_x,
    count(number) AS finite,
    avg(number) AS mean,
    sum(number * decay) AS decayed
FROM parts
GROUP BY curve, pixel, part
ORDER BY curve, pixel, part
