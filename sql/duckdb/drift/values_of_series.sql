-- The distinct values of one series, ascending, and how often they stand in either window; tables as in measured.sql.
SELECT value, category, reference_count, current_count
FROM counted JOIN series USING (series)
WHERE (value IS NOT NULL OR category IS NOT NULL)
    AND model_name = $model_name AND subject = $subject AND feature = $feature
    AND slice = $slice AND slice_value = $slice_value
ORDER BY value, category
