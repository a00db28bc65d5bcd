-- Vectors of texts with these hashes, whatever their keys, made by this model, as pgvector sends them. {table} is an identifier.
SELECT DISTINCT ON (content_hash) content_hash, vector_send(embedding)
FROM {table}
WHERE content_hash = ANY(%(hashes)s) AND model_name = %(model_name)s
