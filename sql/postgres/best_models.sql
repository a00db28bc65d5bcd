-- The best model of each dataset by the metric that judges its runs (judged_runs.sql).
SELECT DISTINCT ON (dataset)
    dataset,
    runs,
    model_name,
    id AS run_id,
    metric,
    value,
    higher_is_better
FROM ({judged_runs}) AS judged
ORDER BY
    dataset,
    -- A run that diverged is never the best.
    abs(value) < 'Infinity' DESC,
    CASE WHEN higher_is_better THEN -value ELSE value END,
    created_at DESC,
    id
