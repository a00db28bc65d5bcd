-- Keeps the vectors that are served now, so that going back takes no model. {table} and {owner} are identifiers.
INSERT INTO search_vectors (table_name, model_name, content_hash, owner, state, embedding)
SELECT DISTINCT ON (model_name, content_hash, {owner}) %(table)s, model_name, content_hash, {owner}, '', embedding
FROM {table}
