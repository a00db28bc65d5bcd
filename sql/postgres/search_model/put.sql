-- Keeps the vector that a model has made of a text.
INSERT INTO search_vectors (table_name, model_name, content_hash, owner, state, embedding)
VALUES (%(table)s, %(model_name)s, %(content_hash)s, %(owner)s, %(state)s, %(embedding)s)
ON CONFLICT (table_name, model_name, content_hash, owner) DO UPDATE
SET state = excluded.state, embedding = excluded.embedding
