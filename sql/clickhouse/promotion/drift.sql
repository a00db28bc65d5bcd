-- The verdicts on a model's inputs on the last day that they were judged, over all answers and those of one version; on
-- the last day there is if they never were. A day that has just begun has too few inputs, and does not hide the one before.
WITH asked AS (
    SELECT toDate(day) AS on_day, feature, slice, state, ks, psi, corrected_p, threshold, current_count
    FROM feature_drift
    WHERE model_name = {model_name:String}
        AND subject = 'input'
        AND (slice = 'all' OR (slice = 'model_version' AND slice_value = {model_version:String}))
)
SELECT on_day AS day, feature, slice, state, ks, psi, corrected_p, threshold, current_count
FROM asked
WHERE on_day = (SELECT ifNull(maxOrNullIf(on_day, state IN ('drift', 'none')), max(on_day)) FROM asked)
ORDER BY slice, feature
