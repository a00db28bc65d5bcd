-- Deletes experiments of persons or programs; those that the graph writes stay. Returns each with its UTC day.
DELETE FROM ml_experiments
WHERE id = ANY(%(ids)s) AND origin = 'api'
RETURNING id, (created_at AT TIME ZONE 'UTC')::date
