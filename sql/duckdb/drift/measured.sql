-- What was measured of each series; the tables are the answers of the statements of these names.
SELECT
    series.model_name,
    series.subject,
    series.feature,
    series.slice,
    series.slice_value,
    series.kind,
    coalesce(sum(counted.reference_count) FILTER (has_value), 0)::BIGINT AS reference_count,
    coalesce(sum(counted.current_count) FILTER (has_value), 0)::BIGINT AS current_count,
    coalesce(sum(counted.reference_count) FILTER (NOT has_value), 0)::BIGINT AS reference_lacking,
    coalesce(sum(counted.current_count) FILTER (NOT has_value), 0)::BIGINT AS current_lacking,
    coalesce(any_value(numbers.distinct_values), any_value(categories.distinct_values)) AS distinct_values,
    any_value(numbers.ks) AS ks,
    any_value(numbers.wasserstein) AS wasserstein,
    coalesce(any_value(numbers.psi), any_value(categories.psi)) AS psi,
    coalesce(any_value(numbers.jensen_shannon), any_value(categories.jensen_shannon)) AS jensen_shannon,
    any_value(categories.chi_squared) AS chi_squared
FROM series
JOIN (SELECT *, value IS NOT NULL OR category IS NOT NULL AS has_value FROM counted) AS counted USING (series)
LEFT JOIN numbers USING (series)
LEFT JOIN categories USING (series)
GROUP BY ALL
ORDER BY ALL
