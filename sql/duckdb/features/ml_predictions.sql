-- One prediction, scored where the truth is known.
-- $start and $end bound the days that are built: [$start, $end) on created_at, UTC.
-- event_time: created_at
-- key: id
-- tags: predictions, quality
SELECT
    prediction_id AS id,
    run_id,
    model_name,
    model_version,
    input_features,
    prediction,
    confidence,
    label,
    -- The answer is any JSON; its text without quotes is what a label is compared with.
    (prediction ->> '$') = label AS is_correct,
    created_at
FROM raw.raw_predictions
WHERE created_at >= $start AND created_at < $end
