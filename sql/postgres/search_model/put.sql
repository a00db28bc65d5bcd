-- Keeps the vector that a model has made of a text.
INSERT INTO search_candidates (table_name, key, model_name, content_hash, embedding)
VALUES (%(table)s, %(key)s, %(model_name)s, %(content_hash)s, %(embedding)s)
ON CONFLICT (table_name, model_name, key) DO UPDATE
SET content_hash = excluded.content_hash, embedding = excluded.embedding
