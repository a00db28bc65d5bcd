-- The accuracy of a model by the day, measured or estimated, over all of its answers and by its versions.
SELECT
    toDate(day) AS day,
    model_name,
    slice,
    slice_value,
    prediction_count,
    labelled_count,
    estimated_accuracy,
    low,
    high,
    applicable,
    reason,
    measured_accuracy,
    accuracy,
    source,
    reference_first,
    reference_last,
    reference_pinned
FROM estimated_accuracy
WHERE model_name = {model_name:String}
    AND toDate(estimated_accuracy.day) BETWEEN toDate({first:String}) AND toDate({last:String})
ORDER BY estimated_accuracy.day, slice, slice_value
