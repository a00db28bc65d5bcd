-- How the models did on each dataset by the metric %(metric)s, over all of their completed runs there: at most
-- %(models)s models of a dataset, in the order of their means. A run without a model's name stands for itself. Names
-- count by their first 200 characters, since an index holds no longer ones; values from 1e150 on are no measurements,
-- and their squares are no numbers any more.
WITH runs AS (
    SELECT
        id,
        left(dataset, 200) AS dataset,
        left(coalesce(model_name, name, id), 200) AS model,
        created_at,
        CASE jsonb_typeof(metrics -> %(metric)s) WHEN 'number' THEN (metrics ->> %(metric)s)::double precision END AS value
    FROM ml_experiments
    WHERE status = 'completed' AND dataset IS NOT NULL
),
models AS (
    SELECT
        dataset,
        model,
        count(*) AS runs,
        avg(value) AS mean,
        stddev_samp(value) AS deviation,
        (array_agg(value ORDER BY value * %(sign)s DESC, created_at, id))[1] AS best,
        (array_agg(id ORDER BY value * %(sign)s DESC, created_at, id))[1] AS best_run_id
    FROM runs
    WHERE abs(value) < 1e150
    GROUP BY dataset, model
),
placed AS (
    SELECT
        *,
        rank() OVER (PARTITION BY dataset ORDER BY mean * %(sign)s DESC) AS rank,
        row_number() OVER (PARTITION BY dataset ORDER BY mean * %(sign)s DESC, model) AS place
    FROM models
)
SELECT dataset, model, rank, runs, mean, deviation, best, best_run_id
FROM placed
WHERE place <= %(models)s
ORDER BY dataset, place
