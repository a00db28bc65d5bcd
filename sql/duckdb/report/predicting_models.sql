-- The models that there are predictions of.
SELECT DISTINCT model_name FROM features.ml_predictions ORDER BY model_name
