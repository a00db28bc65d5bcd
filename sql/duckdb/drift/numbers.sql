-- How far two samples of numbers lie apart, series by series, exactly, by one pass over the distinct values: the
-- largest gap between their cumulative shares (Kolmogorov-Smirnov), the area between them (Wasserstein), and the
-- stability index and Jensen-Shannon distance over $bins bins that hold as much of the reference each, as far as
-- values that repeat allow. `counted` has the columns series, value, reference_count and current_count, and no NaN or infinity.
-- A series of which a sample has no value has no distances.
WITH cumulated AS (
    SELECT
        series,
        value,
        reference_count AS r,
        current_count AS c,
        sum(reference_count) OVER upwards AS reference_until,
        sum(current_count) OVER upwards AS current_until,
        sum(reference_count) OVER whole AS reference_count,
        sum(current_count) OVER whole AS current_count,
        lead(value) OVER upwards - value AS width
    FROM counted
    WHERE value IS NOT NULL
    WINDOW
        upwards AS (PARTITION BY series ORDER BY value),
        whole AS (PARTITION BY series)
),
placed AS (
    SELECT
        *,
        abs(reference_until / reference_count - current_until / current_count) AS gap,
        -- An edge is the lowest value that a share of the reference does not lie above; it is in the bin above itself.
        least($bins - 1, reference_until * $bins // reference_count) AS place,
        -- A value that is more of the reference than a bin should hold is one alone, so that what lies beside it shows.
        r * $bins > reference_count AS is_heavy,
        sum(is_heavy::INT) OVER (PARTITION BY series ORDER BY value) AS heavy_until
    FROM cumulated
    WHERE reference_count > 0 AND current_count > 0
),
distances AS (
    SELECT
        series,
        count(*) AS distinct_values,
        max(gap) AS ks,
        -- Ordered, so that the sum runs the same way each time.
        coalesce(sum(gap * width ORDER BY value), 0) AS wasserstein
    FROM placed
    GROUP BY series
),
bins AS (
    SELECT
        series,
        (place, heavy_until, is_heavy) AS bin,
        sum(r) / any_value(reference_count) AS r,
        sum(c) / any_value(current_count) AS c
    FROM placed
    GROUP BY series, bin
),
divergences AS (
    SELECT
        series,
        sum(
            (if(c = 0, $zero_share, c) - if(r = 0, $zero_share, r))
            * ln(if(c = 0, $zero_share, c) / if(r = 0, $zero_share, r)) ORDER BY bin
        ) AS psi,
        sum(if(r = 0, 0, r * ln(2 * r / (r + c))) + if(c = 0, 0, c * ln(2 * c / (r + c))) ORDER BY bin) AS divergence
    FROM bins
    GROUP BY series
)
SELECT
    series,
    distinct_values,
    ks,
    wasserstein,
    psi,
    sqrt(greatest(divergence, 0) / 2) AS jensen_shannon
FROM distances JOIN divergences USING (series)
ORDER BY series
