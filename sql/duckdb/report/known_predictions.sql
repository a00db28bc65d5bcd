-- From when to when there are predictions of a model, without those that claim to be of a time to come.
SELECT min(created_at) AS first_at, max(created_at) AS last_at
FROM features.ml_predictions
WHERE model_name = $model_name AND created_at < $until
