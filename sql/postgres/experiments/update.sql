-- Changes what is given of an experiment that is held, and leaves the rest; JSON objects are merged, key by key.
UPDATE ml_experiments AS changed
SET
    parent_run_id = coalesce(%(parent_run_id)s, changed.parent_run_id),
    experiment = coalesce(%(experiment)s, changed.experiment),
    name = coalesce(%(name)s, changed.name),
    model_name = coalesce(%(model_name)s, changed.model_name),
    model_version = coalesce(%(model_version)s, changed.model_version),
    model_type = coalesce(%(model_type)s, changed.model_type),
    dataset = coalesce(%(dataset)s, changed.dataset),
    status = coalesce(%(status)s, changed.status),
    parameters = coalesce(changed.parameters || %(parameters)s::jsonb, %(parameters)s::jsonb, changed.parameters),
    metrics = coalesce(changed.metrics || %(metrics)s::jsonb, %(metrics)s::jsonb, changed.metrics),
    tags = coalesce(changed.tags || %(tags)s::jsonb, %(tags)s::jsonb, changed.tags),
    notes = coalesce(%(notes)s, changed.notes),
    error = coalesce(%(error)s, changed.error),
    artifact_uri = coalesce(%(artifact_uri)s, changed.artifact_uri),
    created_at = coalesce(%(created_at)s, changed.created_at),
    completed_at = coalesce(%(completed_at)s, changed.completed_at)
WHERE changed.id = %(id)s
