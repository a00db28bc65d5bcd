-- The episodes of performance_regressions as alerts take them.
SELECT
    model_name, metric, slice, slice_value, kind, direction, began_at, opened_at, last_seen_at, closed_at, before,
    after, change, deviations, confidence, description
FROM performance_regressions
ORDER BY model_name, metric, slice, slice_value, opened_at
