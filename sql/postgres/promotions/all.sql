-- The decisions about a model, the newest first; about all models if it is null.
SELECT id, decided_at, decided_by, model_name, model_version, promotable, checks, evidence, alias, moved_from, notes
FROM ml_promotions
WHERE %(model_name)s::text IS NULL OR model_name = %(model_name)s
ORDER BY id DESC
LIMIT %(most)s
