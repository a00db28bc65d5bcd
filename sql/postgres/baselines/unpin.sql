-- Lets the pinned baseline of a model go; a row if there was one.
DELETE FROM ml_performance_baselines WHERE model_name = %(model_name)s RETURNING model_name
