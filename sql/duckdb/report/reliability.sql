-- How often the predictions of a model in [start, end) were right, by how sure it was, in the bins of
-- features/prediction_quality.sql.
SELECT
    greatest(ceil(confidence * 15), 1)::INTEGER AS bin,
    count(*) AS predictions,
    sum(confidence ORDER BY confidence) AS certainty,
    count(*) FILTER (is_correct) AS hits
FROM features.ml_predictions
WHERE model_name = $model_name
    AND created_at >= $start AND created_at < $end
    AND confidence IS NOT NULL AND is_correct IS NOT NULL
GROUP BY bin
ORDER BY bin
