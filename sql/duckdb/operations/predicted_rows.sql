-- The metric row by row, of some runs that predicted the same rows: of each run its latest prediction of every row whose
-- truth is known and that the others predicted, too, in one order. A row is known by the id that the client gave it, else
-- by its input; rows of which the runs know different truths are left out.
WITH known AS (
    SELECT
        run_id,
        coalesce(extras ->> 'row_id', extras ->> 'entity_id', md5(input_features::VARCHAR)) AS row_id,
        coalesce(extras ->> 'group_id', extras ->> 'group') AS group_id,
        prediction ->> '$' AS answer,
        label
    FROM raw.raw_predictions
    WHERE
        list_contains($run_ids, run_id)
        AND label IS NOT NULL
        AND prediction IS NOT NULL
        AND coalesce(extras ->> 'row_id', extras ->> 'entity_id', input_features::VARCHAR) IS NOT NULL
    QUALIFY
        row_number() OVER (PARTITION BY run_id, row_id ORDER BY created_at DESC, prediction_id DESC) = 1
)
SELECT
    run_id,
    max(group_id) OVER (PARTITION BY row_id) AS group_id,
    CASE $score
        WHEN 'right' THEN (answer = label)::DOUBLE
        WHEN 'wrong' THEN (answer <> label)::DOUBLE
        WHEN 'absolute error' THEN abs(TRY_CAST(answer AS DOUBLE) - TRY_CAST(label AS DOUBLE))
        WHEN 'squared error' THEN pow(TRY_CAST(answer AS DOUBLE) - TRY_CAST(label AS DOUBLE), 2)
    END AS score
FROM known
QUALIFY
    count(*) OVER (PARTITION BY row_id) = len($run_ids)
    AND min(label) OVER (PARTITION BY row_id) = max(label) OVER (PARTITION BY row_id)
ORDER BY run_id, row_id
