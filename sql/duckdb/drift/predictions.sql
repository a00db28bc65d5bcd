-- How many predictions there are, by model and version, and a number that is another one if they are others. `windows`,
-- $start and $end as in values.sql.
SELECT
    model_name,
    coalesce(model_version, '') AS model_version,
    count(*) AS prediction_count,
    -- A sum, which does not ask for an order.
    sum(hash(input_features, prediction, confidence))::HUGEINT AS content
FROM features.ml_predictions JOIN windows USING (model_name)
WHERE created_at >= $start AND created_at < $end AND created_at >= window_start AND created_at < window_end
GROUP BY ALL
