-- A new experiment of a person or a program, beside those that the graph writes.
INSERT INTO ml_experiments (
    id, parent_run_id, experiment, name, model_name, model_version, model_type, dataset,
    status, parameters, metrics, tags, notes, error, artifact_uri, created_at, completed_at, origin
)
VALUES (
    %(id)s, %(parent_run_id)s, %(experiment)s, %(name)s, %(model_name)s, %(model_version)s, %(model_type)s,
    %(dataset)s, %(status)s, %(parameters)s::jsonb, %(metrics)s::jsonb, %(tags)s::jsonb, %(notes)s, %(error)s,
    %(artifact_uri)s, %(created_at)s, %(completed_at)s, 'api'
)
