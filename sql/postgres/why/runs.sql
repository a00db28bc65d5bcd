-- Runs by id, and those of a model that were made in a time.
SELECT
    id, name, experiment, model_name, model_version, dataset, status, parameters, metrics, tags, notes, created_at,
    completed_at,
    id <> ALL(%(ids)s) AS made_then
FROM ml_experiments
WHERE id = ANY(%(ids)s)
    OR id IN (
        SELECT id FROM ml_experiments
        WHERE model_name = %(model_name)s AND created_at >= %(start)s AND created_at < %(end)s
        ORDER BY created_at, id
        LIMIT 3
    )
ORDER BY created_at, id
