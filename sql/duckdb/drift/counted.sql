-- How often each value of each series stands in either window; tables as in series.sql, and `series` is its answer.
-- What is not of the series' kind is no value of it, but a number among categories is one. What a series lacks, for
-- each prediction that has no value of it, stands in a row without value and category.
WITH sides AS (
    SELECT series, number, category, value_count AS reference_count, 0 AS current_count, form, kind
    FROM series JOIN reference_values USING (model_name, subject, feature)
    WHERE reference_predictions > 0
    UNION ALL
    SELECT series, number, category, 0, value_count, form, kind
    FROM series JOIN current_values USING (model_name, subject, feature)
    WHERE slice = 'all' OR model_version = slice_value
),
counted AS (
    SELECT
        series,
        if(kind = 'number', number, NULL) AS value,
        if(kind = 'category', coalesce(category, number::VARCHAR), NULL) AS category,
        sum(reference_count)::BIGINT AS reference_count,
        sum(current_count)::BIGINT AS current_count
    FROM sides
    WHERE (kind = 'number' AND isfinite(number)) OR (kind = 'category' AND form IN ('number', 'category'))
    GROUP BY ALL
),
present AS (
    SELECT series, sum(reference_count) AS reference_count, sum(current_count) AS current_count
    FROM counted
    GROUP BY series
)
FROM counted
UNION ALL
SELECT
    series,
    NULL,
    NULL,
    -- An object that has a name twice has more values than there are predictions.
    if(kind = 'list', 0, greatest(reference_predictions - coalesce(reference_count, 0), 0))::BIGINT,
    if(kind = 'list', 0, greatest(current_predictions - coalesce(current_count, 0), 0))::BIGINT
FROM series LEFT JOIN present USING (series)
