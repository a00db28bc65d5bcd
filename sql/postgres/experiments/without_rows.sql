-- What an experiment has that has no row of a metric or parameter, as from before there were such tables. To be asked
-- once it is held, in a statement of its own: the one that waited for it sees the rows of before.
SELECT metrics::text, parameters::text
FROM ml_experiments AS run
WHERE id = %(id)s
    AND NOT EXISTS (SELECT FROM ml_run_metrics WHERE run_id = run.id)
    AND NOT EXISTS (SELECT FROM ml_run_params WHERE run_id = run.id)
