-- The episodes of drift that go on, of all answers of a model and of those of one version.
SELECT opened_at, slice, slice_value, description
FROM alerts
WHERE source = 'drift' AND model_name = {model_name:String} AND closed_at IS NULL
    AND (slice = 'all' OR (slice = 'model_version' AND slice_value = {model_version:String}))
ORDER BY opened_at
