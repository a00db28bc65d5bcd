-- Drift of one day, or of the last day of each model; of one model, or of all; of one slice, or of all.
SELECT *
FROM feature_drift
WHERE ({model_name:String} = '' OR model_name = {model_name:String})
    AND ({slice:String} = '' OR slice = {slice:String})
    AND ({day:String} = '' OR toDate32(day) = toDate32OrNull({day:String}))
    AND ({day:String} != '' OR (model_name, day) IN (SELECT model_name, max(day) FROM feature_drift GROUP BY model_name))
ORDER BY model_name, day, subject, feature, slice, slice_value
