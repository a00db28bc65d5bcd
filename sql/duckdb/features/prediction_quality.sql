-- How right the predictions of a model's day are, and whether it is as sure as it is right, over all of them and by
-- slice: its versions, and bands of its confidence. Labels count whenever they come, and change the day of their
-- predictions; measures of rows whose truth nobody knows are null. Since nobody notes when a label came, this tells
-- nothing of what was known at a time, and is no view to learn from.
-- The calibration error is that of Guo et al., "On Calibration of Modern Neural Networks" (2017): predictions fall into
-- 15 bins of equal width by their confidence c, bin ceil(15 c), and each bin counts by its share of the predictions with
-- the distance between its accuracy and its mean confidence. The Brier score is that of the answer alone, the mean of
-- (c - 1)^2 where it was right and c^2 where it was wrong: of the other classes no probability is kept.
-- $start and $end bound the days that are built: [$start, $end) on day, UTC.
-- event_time: day
-- key: model_name, day, slice, slice_value
-- owner: team:ml-assets
-- tags: quality
WITH predictions AS (
    SELECT
        model_name,
        date_trunc('day', created_at) AS day,
        confidence,
        is_correct,
        unnest([
            {'name': 'all', 'value': NULL::VARCHAR},
            {'name': 'model_version', 'value': model_version},
            {
                'name': 'confidence',
                'value': CASE
                    WHEN confidence < 0.5 THEN '0.0-0.5'
                    WHEN confidence < 0.7 THEN '0.5-0.7'
                    WHEN confidence < 0.9 THEN '0.7-0.9'
                    WHEN confidence <= 1.0 THEN '0.9-1.0'
                END
            }
        ]) AS slice,
        -- Of those that can be scored: right is 1, wrong is 0.
        if(confidence IS NULL, NULL, is_correct::TINYINT::DOUBLE) AS hit,
        if(is_correct IS NULL, NULL, confidence) AS certainty
    FROM features.ml_predictions
    WHERE created_at >= $start AND created_at < $end
),
-- Ordered, so that the sums run the same way each time and the last bits agree.
bins AS (
    SELECT
        model_name,
        day,
        slice.name AS slice,
        slice.value AS slice_value,
        greatest(ceil(certainty * 15), 1) AS bin,
        count(*) AS predicted,
        count(is_correct) AS labelled,
        count(*) FILTER (is_correct) AS correct,
        count(hit) AS scored,
        sum(certainty ORDER BY certainty) AS certainty,
        sum(hit) AS hits,
        sum((certainty - hit) ** 2 ORDER BY hit, certainty) AS squares
    FROM predictions
    GROUP BY model_name, day, slice.name, slice.value, bin
)
SELECT
    model_name,  -- the model
    day,  -- start of the day on which it predicted, UTC; the day is the partition
    slice,  -- what the predictions are divided by: all (not at all), model_version or confidence
    slice_value,  -- the version, or the band of confidence from one number to below the other; null of all, and where it is not known
    sum(predicted)::BIGINT AS prediction_count,  -- predictions
    sum(labelled)::BIGINT AS labelled_count,  -- those of them whose truth is known
    sum(scored)::BIGINT AS scored_count,  -- those of these that have a confidence, too
    sum(correct) / nullif(sum(labelled), 0) AS accuracy,  -- share of right ones among the labelled
    sum(certainty ORDER BY bin) / nullif(sum(scored), 0) AS avg_confidence,  -- mean confidence of the scored
    sum(abs(hits - certainty) ORDER BY bin) / nullif(sum(scored), 0) AS calibration_error,  -- expected calibration error of the scored, 15 bins
    sum(squares ORDER BY bin) / nullif(sum(scored), 0) AS brier_score  -- mean squared distance of confidence and outcome of the scored
FROM bins
GROUP BY model_name, day, slice, slice_value
