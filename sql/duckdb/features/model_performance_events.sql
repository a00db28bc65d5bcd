-- One performance event with what is known of the run behind it, so that latency and quality can be cut by
-- model type, dataset and age of the model. A served inference is such an event, too.
-- $start and $end bound the days that are built: [$start, $end) on timestamp, UTC.
-- partition: timestamp
-- key: event_id
-- order: model_name, timestamp
-- tags: quality, latency
SELECT
    event.* EXCLUDE (extras),
    run.model_type,
    run.dataset,
    run.accuracy AS trained_accuracy,
    epoch_us(event.timestamp - run.completed_at) / 1e6 AS model_age_s
FROM raw.raw_performance AS event
LEFT JOIN features.run_features AS run ON event.run_id = run.run_id
WHERE event.timestamp >= $start AND event.timestamp < $end
