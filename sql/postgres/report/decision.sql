-- The newest decision of the gate on a model.
SELECT decided_at, decided_by, model_version, promotable, checks, alias, notes
FROM ml_promotions
WHERE model_name = %(model_name)s
ORDER BY id DESC
LIMIT 1
