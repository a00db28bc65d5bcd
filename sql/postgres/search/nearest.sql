-- The texts whose vectors are nearest to one, nearest first. Vectors of other models are not compared: each model has an
-- index of its own. {order} is the distance that the index is of, which long vectors are rounded for.
SELECT key, owner, 1 - distance AS score
FROM (
    SELECT entry.{key} AS key, entry.{owner} AS owner, entry.embedding <=> %(vector)s::vector AS distance
    FROM {table} AS entry
    WHERE entry.model_name = %(embedder)s AND {condition}
    ORDER BY {order}
    LIMIT %(most)s
) AS found
ORDER BY distance
