-- The newest experiments, of the graph and of others, filtered by whatever is given.
SELECT *
FROM ml_experiments
WHERE (%(experiment)s::text IS NULL OR experiment = %(experiment)s)
    AND (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(origin)s::text IS NULL OR origin = %(origin)s)
ORDER BY created_at DESC, id
LIMIT %(limit)s
