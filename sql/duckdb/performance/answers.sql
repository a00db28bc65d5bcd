-- The answers of each model's days by their confidence in thousandths, which is as fine as an accuracy asks for: how many,
-- how many have a known truth, and how many were right; over all of them, and by the model's version. An answer without a
-- confidence has NaN in its place. A row a day, with lists.
-- $start and $end bound the days: [$start, $end) on created_at, UTC.
WITH answers AS (
    SELECT
        model_name,
        date_trunc('day', created_at) AS day,
        round(confidence, 3) AS confidence,
        is_correct,
        unnest([
            {'name': 'all', 'value': ''},
            {'name': 'model_version', 'value': coalesce(model_version, '')}
        ]) AS slice
    FROM features.ml_predictions
    WHERE created_at >= $start AND created_at < $end
),
counted AS (
    SELECT
        model_name,
        day,
        slice.name AS slice,
        slice.value AS slice_value,
        confidence,
        count(*)::DOUBLE AS predicted,
        count(is_correct)::DOUBLE AS labelled,
        count(*) FILTER (is_correct)::DOUBLE AS correct
    FROM answers
    GROUP BY ALL
)
SELECT
    model_name,
    slice,
    slice_value,
    day,
    list(coalesce(confidence, 'nan'::DOUBLE) ORDER BY confidence) AS confidence,
    list(predicted ORDER BY confidence) AS predicted,
    list(labelled ORDER BY confidence) AS labelled,
    list(correct ORDER BY confidence) AS correct
FROM counted
GROUP BY ALL
ORDER BY ALL
