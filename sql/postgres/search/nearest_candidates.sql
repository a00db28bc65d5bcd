-- As nearest.sql, by the vectors of a model that is not served; all are compared.
SELECT entry.{key}, entry.{owner}, 1 - (candidate.embedding <=> %(vector)s::vector) AS score
FROM {table} AS entry
JOIN search_candidates AS candidate
    ON candidate.table_name = %(table)s AND candidate.key = entry.{key}
    AND candidate.model_name = %(embedder)s AND candidate.content_hash = entry.content_hash
ORDER BY candidate.embedding <=> %(vector)s::vector, entry.{key}
LIMIT %(most)s
