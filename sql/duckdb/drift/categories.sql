-- How far two samples of categories lie apart, series by series: stability index, Jensen-Shannon distance and Pearson's
-- chi-squared. `series` and `counted` as those of series.sql and counted.sql; null counts as a category of its own,
-- since values that go missing are a drift, too. All but the $most most frequent categories of the reference are one
-- category, of which those are that it does not have. A series of which a sample is empty has no distances.
WITH ranked AS (
    SELECT
        series,
        reference_count,
        current_count,
        row_number() OVER (PARTITION BY series ORDER BY reference_count DESC, category) AS place
    FROM counted JOIN series USING (series)
    WHERE kind = 'category'
),
pooled AS (
    SELECT
        series,
        least(if(reference_count > 0, place, $most + 1), $most + 1) AS place,
        sum(reference_count) AS r,
        sum(current_count) AS c
    FROM ranked
    GROUP BY ALL
),
totals AS (
    SELECT
        *,
        sum(r) OVER (PARTITION BY series) AS reference_count,
        sum(c) OVER (PARTITION BY series) AS current_count,
        r / reference_count AS p,
        c / current_count AS q,
        reference_count / (reference_count + current_count) AS part
    FROM pooled
    WHERE r + c > 0
)
SELECT
    series,
    count(*) AS distinct_values,
    sum((if(q = 0, $zero_share, q) - if(p = 0, $zero_share, p))
        * ln(if(q = 0, $zero_share, q) / if(p = 0, $zero_share, p)) ORDER BY place) AS psi,
    sqrt(greatest(
        sum(if(p = 0, 0, p * ln(2 * p / (p + q))) + if(q = 0, 0, q * ln(2 * q / (p + q))) ORDER BY place), 0
    ) / 2) AS jensen_shannon,
    sum(
        (r - (r + c) * part) ** 2 / ((r + c) * part) + (c - (r + c) * (1 - part)) ** 2 / ((r + c) * (1 - part))
        ORDER BY place
    ) AS chi_squared
FROM totals
WHERE reference_count > 0 AND current_count > 0
GROUP BY series
ORDER BY series
