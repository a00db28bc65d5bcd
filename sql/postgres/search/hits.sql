-- The rows of what was found, without their vectors.
SELECT entry.{key}, to_jsonb(entry) - 'embedding'
FROM {table} AS entry
WHERE entry.{key} = ANY(%(keys)s)
