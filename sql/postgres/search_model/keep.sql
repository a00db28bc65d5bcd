-- Keeps the vectors that are served now, so that going back takes no model.
INSERT INTO search_candidates (table_name, key, model_name, content_hash, embedding)
SELECT %(table)s, {key}, model_name, content_hash, embedding FROM {table}
ON CONFLICT (table_name, model_name, key) DO UPDATE
SET content_hash = excluded.content_hash, embedding = excluded.embedding
