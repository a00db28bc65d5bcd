-- As nearest.sql among some keys alone: each is compared, without the index, which may miss what is near.
WITH few AS MATERIALIZED (
    SELECT entry.{key} AS key, entry.{owner} AS owner, entry.embedding
    FROM {table} AS entry
    WHERE entry.{key} = ANY(%(keys)s) AND entry.model_name = %(embedder)s
)
SELECT key, owner, 1 - (embedding <=> %(vector)s::vector) AS score
FROM few
ORDER BY embedding <=> %(vector)s::vector, key
LIMIT %(most)s
