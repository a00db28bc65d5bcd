-- When runs began, and what their curves can be grouped by.
SELECT
    id, created_at, parent_run_id, experiment, name, model_name, model_version, model_type, dataset, status,
    parameters, tags
FROM ml_experiments
WHERE id = ANY(%(ids)s)
