-- Experiments of applications on the days [start, end) that have metrics or parameters and no row of one, as from before
-- there were such tables, or metrics whose best goes by another direction.
SELECT id
FROM ml_experiments AS run
WHERE origin = 'api' AND created_at >= %(start)s AND created_at < %(end)s
    AND (
        (
            coalesce(metrics, '{}') || coalesce(parameters, '{}') <> '{}'
            AND NOT EXISTS (SELECT FROM ml_run_metrics WHERE run_id = run.id)
            AND NOT EXISTS (SELECT FROM ml_run_params WHERE run_id = run.id)
        )
        OR EXISTS (
            SELECT FROM ml_run_metrics
            WHERE run_id = run.id AND best <> CASE WHEN key = ANY(%(falling)s) THEN min ELSE max END
        )
    )
ORDER BY id
