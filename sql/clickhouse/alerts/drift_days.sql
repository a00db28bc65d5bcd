-- The days on which drift was judged, of models and slices that drifted on any: how many features drift, and the
-- farthest of them. What lies how far is measured in thresholds.
WITH judged AS (
    SELECT
        model_name, slice, slice_value, toDate32(day) AS on_day, subject, feature, state,
        if(ks IS NULL, 'PSI', 'KS') AS measure, coalesce(ks, psi) AS distance, threshold, corrected_p
    FROM feature_drift
    WHERE state IN ('drift', 'none')
        AND (model_name, slice, slice_value) IN (
            SELECT model_name, slice, slice_value FROM feature_drift WHERE state = 'drift'
        )
)
SELECT
    model_name, slice, slice_value, on_day,
    countIf(state = 'drift') AS drifting,
    arraySlice(
        arraySort(
            each -> -tupleElement(each, 4) / tupleElement(each, 5),
            groupArrayIf(
                (
                    subject, feature, measure, coalesce(distance, 0.), coalesce(threshold, 1.),
                    coalesce(corrected_p, 1.)
                ),
                state = 'drift'
            )
        ),
        1,
        20
    ) AS drifted
FROM judged
GROUP BY model_name, slice, slice_value, on_day
ORDER BY model_name, slice, slice_value, on_day
