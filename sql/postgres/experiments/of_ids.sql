-- The experiments of these ids, whoever made them, in no order.
SELECT
    id, name, experiment, model_name, model_type, model_version, dataset, status, parameters, metrics, tags,
    created_at, completed_at
FROM ml_experiments
WHERE id = ANY(%(ids)s)
