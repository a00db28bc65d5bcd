-- The runs behind the events of some models: from when to when each was in use, on which dataset.
SELECT
    model_name,
    coalesce(dataset, '') AS dataset,
    model_version,
    run_id,
    min(timestamp) AS first_at,
    max(timestamp) AS last_at,
    toInt64(count()) AS event_count
FROM ml_model_performance
WHERE model_name IN {models:Array(String)}
GROUP BY model_name, dataset, model_version, run_id
ORDER BY model_name, first_at, last_at, run_id
