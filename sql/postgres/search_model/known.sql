-- The vectors of a model beside those that are served, for some texts, as pgvector sends them.
SELECT DISTINCT ON (content_hash) content_hash, vector_send(embedding)
FROM search_vectors
WHERE table_name = %(table)s AND model_name = %(model_name)s AND content_hash = ANY(%(hashes)s)
