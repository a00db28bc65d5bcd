-- The latest completed run of every model: what an application asks for when it serves the model.
SELECT
    model_name,
    run_id,
    model_version,
    model_type,
    dataset,
    primary_metric,
    primary_value,
    primary_higher_is_better,
    previous_best_primary_value,
    primary_change,
    accuracy,
    f1_score,
    previous_best_accuracy,
    accuracy_change,
    previous_runs,
    duration_s,
    created_at AS event_timestamp
FROM features.run_features
WHERE status = 'completed' AND model_name IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY model_name ORDER BY created_at DESC, run_id DESC) = 1
