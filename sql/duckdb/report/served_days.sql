-- How right the predictions of a model are by the day that they were made on, of the days [start, end).
SELECT day, prediction_count, labelled_count, accuracy, avg_confidence, calibration_error
FROM features.prediction_quality
WHERE model_name = $model_name AND slice = 'all' AND day >= $start AND day < $end
ORDER BY day
