-- The models that made the vectors of a table.
SELECT DISTINCT model_name FROM {table}
