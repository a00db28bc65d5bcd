-- The last decision about a version of a model.
SELECT promotable, checks, evidence ->> 'alias_version' AS alias_version
FROM ml_promotions
WHERE model_name = %(model_name)s AND model_version = %(model_version)s
ORDER BY id DESC
LIMIT 1
