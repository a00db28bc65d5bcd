-- Vectors that are stored already for these keys, made by this model. {table} and {key} are identifiers.
SELECT content_hash, embedding
FROM {table}
WHERE {key} = ANY(%(ids)s) AND model_name = %(model_name)s
