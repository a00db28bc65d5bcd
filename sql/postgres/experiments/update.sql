-- Changes what is given and leaves the rest; JSON objects are merged, key by key.
UPDATE ml_experiments
SET
    parent_run_id = coalesce(%(parent_run_id)s, parent_run_id),
    experiment = coalesce(%(experiment)s, experiment),
    name = coalesce(%(name)s, name),
    model_name = coalesce(%(model_name)s, model_name),
    model_version = coalesce(%(model_version)s, model_version),
    model_type = coalesce(%(model_type)s, model_type),
    dataset = coalesce(%(dataset)s, dataset),
    status = coalesce(%(status)s, status),
    parameters = coalesce(parameters || %(parameters)s::jsonb, %(parameters)s::jsonb, parameters),
    metrics = coalesce(metrics || %(metrics)s::jsonb, %(metrics)s::jsonb, metrics),
    tags = coalesce(tags || %(tags)s::jsonb, %(tags)s::jsonb, tags),
    notes = coalesce(%(notes)s, notes),
    error = coalesce(%(error)s, error),
    artifact_uri = coalesce(%(artifact_uri)s, artifact_uri),
    created_at = coalesce(%(created_at)s, created_at),
    completed_at = coalesce(%(completed_at)s, completed_at)
WHERE id = %(id)s
    AND origin = 'api'
    AND completed_at IS NULL
