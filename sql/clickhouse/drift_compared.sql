-- What each model was held against on each day.
SELECT DISTINCT toDate32(day) AS compared_on, model_name, reference_first, reference_last, reference_content
FROM feature_drift
