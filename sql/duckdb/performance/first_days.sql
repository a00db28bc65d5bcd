-- The first day on which each model has answered, UTC, of the models that have answered in [$start, $end).
SELECT model_name, min(created_at)::DATE AS first_day
FROM features.ml_predictions
WHERE model_name IN (
    SELECT model_name FROM features.ml_predictions WHERE created_at >= $start AND created_at < $end
)
GROUP BY model_name
ORDER BY model_name
