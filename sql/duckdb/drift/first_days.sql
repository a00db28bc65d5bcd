-- The first day, UTC, of each model that there are predictions of.
SELECT model_name, min(created_at)::DATE AS first_day FROM features.ml_predictions GROUP BY model_name ORDER BY model_name
