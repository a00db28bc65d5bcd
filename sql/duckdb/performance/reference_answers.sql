-- The answers of each model's reference days whose truth is known, by their confidence in thousandths, as lists. The
-- relation `reference` has a row a model: model_name, start_time and end_time, [start_time, end_time) UTC; $start and $end
-- enclose all of them, so that the engine leaves out the files of other days.
WITH counted AS (
    SELECT
        answer.model_name,
        round(answer.confidence, 3) AS confidence,
        count(*)::DOUBLE AS labelled,
        count(*) FILTER (answer.is_correct)::DOUBLE AS correct
    FROM features.ml_predictions AS answer
    JOIN reference USING (model_name)
    WHERE answer.created_at >= $start
        AND answer.created_at < $end
        AND answer.created_at >= reference.start_time
        AND answer.created_at < reference.end_time
        AND answer.confidence IS NOT NULL
        AND answer.is_correct IS NOT NULL
    GROUP BY ALL
)
SELECT
    model_name,
    list(confidence ORDER BY confidence) AS confidence,
    list(labelled ORDER BY confidence) AS labelled,
    list(correct ORDER BY confidence) AS correct
FROM counted
GROUP BY model_name
ORDER BY model_name
