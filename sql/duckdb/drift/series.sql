-- What is compared: each feature of each model in each slice of the current window, with the slice's values held
-- against all of the reference, since versions come and go. Tables: `reference_values` and `current_values` of
-- values.sql, `reference_predictions` and `current_predictions` of predictions.sql. A feature is what most of its
-- values are, nulls aside: of the reference, or of the current window where the reference has none. The models named in
-- $inside have no reference.
WITH forms AS (
    SELECT model_name, subject, feature, form, sum(value_count) AS value_count, TRUE AS is_reference
    FROM reference_values GROUP BY ALL
    UNION ALL
    SELECT model_name, subject, feature, form, sum(value_count), FALSE FROM current_values GROUP BY ALL
),
kinds AS (
    SELECT
        model_name,
        subject,
        feature,
        arg_max(
            form,
            -- Values before nulls, the reference before the rest, then by number; by name, so that it is always the same.
            (form <> 'null', is_reference, value_count, form)
        ) AS form
    FROM forms
    -- What the current window alone has of a model does not tell what there would have been.
    WHERE model_name IN (SELECT model_name FROM current_predictions)
    GROUP BY ALL
),
slices AS (
    SELECT model_name, 'all' AS slice, '' AS slice_value, sum(prediction_count) AS current_predictions
    FROM current_predictions GROUP BY ALL
    UNION ALL
    SELECT model_name, 'model_version', model_version, prediction_count FROM current_predictions
),
whole AS (
    SELECT model_name, sum(prediction_count) AS reference_predictions
    FROM reference_predictions
    WHERE NOT list_contains($inside, model_name)
    GROUP BY ALL
)
SELECT
    row_number() OVER (ORDER BY model_name, subject, feature, slice, slice_value) AS series,
    model_name,
    subject,
    feature,
    slice,
    slice_value,
    if(form = 'null', 'category', form) AS kind,
    coalesce(reference_predictions, 0)::BIGINT AS reference_predictions,
    current_predictions::BIGINT AS current_predictions
FROM kinds JOIN slices USING (model_name) LEFT JOIN whole USING (model_name)
ORDER BY series
