-- How right two versions of a model were, by day and by the slices of prediction_quality.
WITH answers AS (
    SELECT
        model_version,
        created_at::DATE AS day,
        is_correct,
        unnest([
            {'name': 'all', 'value': ''},
            {
                'name': 'confidence',
                'value': CASE
                    WHEN confidence < 0.5 THEN '0.0-0.5'
                    WHEN confidence < 0.7 THEN '0.5-0.7'
                    WHEN confidence < 0.9 THEN '0.7-0.9'
                    WHEN confidence <= 1.0 THEN '0.9-1.0'
                    ELSE ''
                END
            }
        ]) AS slice
    FROM features.ml_predictions
    WHERE model_name = $model AND list_contains($versions, model_version)
)
SELECT
    model_version,
    slice.name AS slice,
    slice.value AS slice_value,
    day,
    count(*) AS predicted,
    count(is_correct) AS labelled,
    count(*) FILTER (is_correct) AS correct
FROM answers
GROUP BY ALL
ORDER BY ALL
