-- What a comparison needs of the runs of a group, and no more: the metric, and what runs may share.
-- {conditions} and {label} are put together from columns of the table and bound values.
SELECT
    id AS run_id,
    experiment,
    parent_run_id,
    status,
    dataset,
    {label} AS label,
    metrics -> %(metric)s AS value,
    coalesce(
        parameters ->> 'seed', parameters ->> 'random_state', parameters ->> 'random_seed',
        tags ->> 'seed', tags ->> 'random_state', tags ->> 'random_seed'
    ) AS seed,
    coalesce(
        parameters ->> 'fold', parameters ->> 'cv_fold', parameters ->> 'split',
        tags ->> 'fold', tags ->> 'cv_fold', tags ->> 'split'
    ) AS split,
    coalesce(parameters ->> 'test_size', parameters ->> 'test_fraction') AS test_fraction,
    coalesce(
        (
            SELECT string_agg(DISTINCT one.value ->> 'digest', '+' ORDER BY one.value ->> 'digest')
            FROM jsonb_array_elements(
                CASE jsonb_typeof(tags -> 'mlflow.datasets') WHEN 'array' THEN tags -> 'mlflow.datasets' END
            ) AS one
            WHERE one.value ->> 'name' = dataset
        ),
        parameters ->> 'dataset_digest',
        tags ->> 'dataset_digest'
    ) AS digest
FROM ml_experiments AS run
WHERE {conditions}
ORDER BY created_at, id
