-- What was said of the inputs of all answers of a model, of the days [start, end).
SELECT day, subject, feature, kind, ks, psi, threshold, corrected_p, state, reference_count, current_count
FROM feature_drift
WHERE model_name = {model_name:String}
    AND subject = 'input'
    AND slice = 'all'
    AND state IN ('drift', 'none')
    AND day >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND day < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
ORDER BY day, feature
