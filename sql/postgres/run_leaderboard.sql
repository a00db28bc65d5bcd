-- How the models did on each dataset by the metric that judges its runs (judged_runs.sql), over all of their completed
-- runs there that have it: at most %(models)s models of a dataset, in the order of their means. A run without a model's
-- name stands for itself. Names count by their first 200 characters, since an index holds no longer ones; values from
-- 1e150 on are no measurements, and their squares are no numbers any more.
WITH runs AS (
    SELECT
        id,
        left(dataset, 200) AS dataset,
        metric,
        higher_is_better,
        left(coalesce(model_name, name, id), 200) AS model,
        created_at,
        value,
        CASE WHEN higher_is_better THEN value ELSE -value END AS goodness
    FROM ({judged_runs}) AS judged
),
models AS (
    SELECT
        dataset,
        metric,
        higher_is_better,
        model,
        count(*) AS runs,
        avg(value) AS mean,
        stddev_samp(value) AS deviation,
        avg(goodness) AS goodness,
        (array_agg(value ORDER BY goodness DESC, created_at, id))[1] AS best,
        (array_agg(id ORDER BY goodness DESC, created_at, id))[1] AS best_run_id
    FROM runs
    WHERE abs(value) < 1e150
    GROUP BY dataset, metric, higher_is_better, model
),
placed AS (
    SELECT
        *,
        rank() OVER (PARTITION BY dataset, metric ORDER BY goodness DESC) AS rank,
        row_number() OVER (PARTITION BY dataset, metric ORDER BY goodness DESC, model) AS place
    FROM models
)
SELECT dataset, metric, higher_is_better, model, rank, runs, mean, deviation, best, best_run_id
FROM placed
WHERE place <= %(models)s
ORDER BY dataset, metric, place
