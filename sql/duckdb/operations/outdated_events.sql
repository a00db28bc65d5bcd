-- Days of model_performance_events whose rows show something else of their run than run_features holds now: the
-- run, or a metric of it, came later than the event. $within picks days inside or outside of [$first, $last].
SELECT DISTINCT event.timestamp::DATE AS day
FROM features.model_performance_events AS event
LEFT JOIN features.run_features AS run USING (run_id)
WHERE event.run_id IS NOT NULL
    AND (event.timestamp::DATE BETWEEN $first AND $last) = $within
    AND (
        event.model_type IS DISTINCT FROM run.model_type
        OR event.dataset IS DISTINCT FROM run.dataset
        OR event.trained_accuracy IS DISTINCT FROM run.accuracy
        OR event.model_age_s IS DISTINCT FROM epoch_us(event.timestamp - run.completed_at) / 1e6
    )
