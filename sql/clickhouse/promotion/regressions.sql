-- The episodes in which a model is worse than before that go on.
SELECT metric, slice, slice_value, opened_at, last_seen_at, before, after, change, description
FROM performance_regressions
WHERE model_name = {model_name:String} AND closed_at IS NULL
ORDER BY opened_at, metric, slice, slice_value
