-- The models that there are events of.
SELECT DISTINCT model_name FROM ml_model_performance ORDER BY model_name
