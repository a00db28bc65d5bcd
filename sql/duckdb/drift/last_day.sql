-- The last day, UTC, on which one of these models predicted.
SELECT max(created_at)::DATE FROM features.ml_predictions WHERE list_contains($models, model_name)
