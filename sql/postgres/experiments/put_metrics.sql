-- Rows of metrics of one experiment, in the place of those of the same keys.
INSERT INTO ml_run_metrics (
    run_id, key, last, best, min, max, mean, count, last_step, first_nan_at, created_at, origin
)
SELECT %(id)s, given.*, %(created_at)s, 'api'
FROM unnest(
    %(key)s::text[], %(last)s::float8[], %(best)s::float8[], %(min)s::float8[], %(max)s::float8[],
    %(mean)s::float8[], %(count)s::bigint[], %(last_step)s::bigint[], %(first_nan_at)s::timestamptz[]
) AS given
ON CONFLICT (run_id, key) DO UPDATE SET
    last = excluded.last,
    best = excluded.best,
    min = excluded.min,
    max = excluded.max,
    mean = excluded.mean,
    count = excluded.count,
    last_step = excluded.last_step,
    first_nan_at = excluded.first_nan_at
