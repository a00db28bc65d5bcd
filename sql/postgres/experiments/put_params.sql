-- Rows of parameters of one experiment, in the place of those of the same keys.
INSERT INTO ml_run_params (run_id, key, text, number, created_at, origin)
SELECT %(id)s, given.*, %(created_at)s, 'api'
FROM unnest(%(key)s::text[], %(text)s::text[], %(number)s::float8[]) AS given
ON CONFLICT (run_id, key) DO UPDATE SET text = excluded.text, number = excluded.number
