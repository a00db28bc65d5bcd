-- What ml_training_data must hold of the runs {rows}: every dataset that they keep in their tags, else the one that they
-- name.
WITH runs AS (
    SELECT id, dataset, CASE jsonb_typeof(tags -> 'mlflow.datasets') WHEN 'array' THEN tags -> 'mlflow.datasets' END AS kept
    FROM {rows} AS run
),
kept AS (
    SELECT DISTINCT ON (experiment_id, dataset_name, coalesce(context, ''), coalesce(digest, '')) *
    FROM (
        SELECT
            runs.id AS experiment_id,
            one.value ->> 'name' AS dataset_name,
            CASE jsonb_typeof(one.value -> 'context') WHEN 'string' THEN one.value ->> 'context' END AS context,
            CASE jsonb_typeof(one.value -> 'digest') WHEN 'string' THEN one.value ->> 'digest' END AS digest,
            substring(one.value -> 'row_count' #>> '{{}}' FROM '^[0-9]{{1,18}}$') AS row_count,
            one.place
        FROM runs, jsonb_array_elements(runs.kept) WITH ORDINALITY AS one(value, place)
        WHERE jsonb_typeof(one.value) = 'object' AND jsonb_typeof(one.value -> 'name') = 'string'
            AND one.value ->> 'name' <> ''
    ) AS found
    ORDER BY experiment_id, dataset_name, coalesce(context, ''), coalesce(digest, ''), place
)
SELECT experiment_id, dataset_name, context, digest, row_count FROM kept
UNION ALL
SELECT id, dataset, NULL, NULL, NULL FROM runs
WHERE dataset <> '' AND id NOT IN (SELECT experiment_id FROM kept)
