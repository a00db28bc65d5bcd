-- The models that made the vectors of a table, with the length of these. {table} is an identifier.
SELECT model_name, vector_dims(embedding) AS dimension, count(*) AS vectors
FROM {table}
GROUP BY model_name, dimension
ORDER BY vectors DESC, model_name
