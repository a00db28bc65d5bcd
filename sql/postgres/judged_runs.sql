-- The completed runs of each dataset with their value of the metric that judges most of them, of two the one that comes
-- first in the ranking. The arrays are the ranking of lib/metric_rules.py, a rule an element, in its order.
WITH rules AS (
    SELECT *
    FROM unnest(
        %(keys)s::text[], %(names)s::text[], %(datasets)s::text[], %(experiments)s::text[], %(rising)s::boolean[]
    ) WITH ORDINALITY AS rule (key, name, dataset, experiment, higher_is_better, rank)
),
-- What is no number judges nothing; NaN and the infinities stand in JSON as text.
finals AS (
    SELECT
        run.id,
        run.dataset,
        run.experiment,
        run.name,
        run.model_name,
        run.created_at,
        metric.key,
        CASE
            WHEN jsonb_typeof(metric.value) = 'number'
                OR metric.value #>> '{}' IN ('NaN', 'Infinity', '-Infinity')
                THEN (metric.value #>> '{}')::double precision
        END AS value
    FROM ml_experiments AS run
    CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(run.metrics) = 'object' THEN run.metrics END) AS metric
    WHERE run.status = 'completed' AND run.dataset IS NOT NULL
),
judged AS (
    SELECT DISTINCT ON (run.id) run.*, rule.name AS metric, rule.higher_is_better, rule.rank
    FROM finals AS run
    JOIN rules AS rule
        ON run.key = rule.key
        AND (rule.dataset IS NULL OR rule.dataset = run.dataset)
        AND (rule.experiment IS NULL OR rule.experiment = run.experiment)
    WHERE run.value IS NOT NULL
    ORDER BY run.id, rule.rank
),
compared AS (
    SELECT DISTINCT ON (dataset) dataset, metric, higher_is_better, count(*) AS runs
    FROM judged
    GROUP BY dataset, metric, higher_is_better
    ORDER BY dataset, count(*) DESC, min(rank)
)
SELECT
    judged.id,
    dataset,
    judged.name,
    judged.model_name,
    judged.created_at,
    metric,
    higher_is_better,
    judged.value,
    compared.runs
FROM compared JOIN judged USING (dataset, metric, higher_is_better)
