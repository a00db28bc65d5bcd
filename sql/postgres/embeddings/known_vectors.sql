-- Vectors that are stored already for these keys, made by this model, as pgvector sends them. {table} and {key} are identifiers.
SELECT content_hash, vector_send(embedding)
FROM {table}
WHERE {key} = ANY(%(ids)s) AND model_name = %(model_name)s
