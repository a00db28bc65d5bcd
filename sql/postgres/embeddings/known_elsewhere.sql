-- Vectors of texts with these hashes, whatever their keys, made by this model. {table} is an identifier.
SELECT DISTINCT ON (content_hash) content_hash, embedding
FROM {table}
WHERE content_hash = ANY(%(hashes)s) AND model_name = %(model_name)s
