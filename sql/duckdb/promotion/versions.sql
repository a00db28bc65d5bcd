-- The versions of each model, the newest last: when each came up, which is when its run ended, or when it first answered;
-- the run that trained it, how many answers of it there are, and the day of the first. $models names the models; all of
-- them if it is null.
WITH seen AS (
    SELECT model_name, model_version, run_id, coalesce(completed_at, created_at) AS seen_at, 0 AS answers
    FROM raw.raw_runs
    WHERE status = 'completed'
    UNION ALL BY NAME
    SELECT
        model_name,
        model_version,
        min(run_id) AS run_id,
        min(created_at) AS seen_at,
        count(*) AS answers,
        min(created_at) AS first_answer
    FROM features.ml_predictions
    GROUP BY model_name, model_version
)
SELECT
    model_name,
    model_version,
    min(seen_at) AS came_at,
    arg_min(run_id, seen_at) AS run_id,
    sum(answers)::BIGINT AS answers,
    min(first_answer)::DATE AS first_answer
FROM seen
WHERE model_name IS NOT NULL
    AND model_version IS NOT NULL
    AND ($models IS NULL OR list_contains($models, model_name))
GROUP BY model_name, model_version
ORDER BY model_name, came_at, length(model_version), model_version
