-- One result of an experiment: what a completed run reached, a scored evaluation of its model, or a request that it
-- answered. A row stands on the day on which the run started or the event happened, and `known_at` says from when its
-- values could be read: a run's from its end, or its last point if that came later.
-- $start and $end bound the days that are built: [$start, $end) on created_at, UTC.
-- event_time: created_at
-- known_time: known_at
-- key: kind, result_id
-- owner: team:ml-assets
-- tags: quality, latency
SELECT
    'training' AS kind,  -- training (a completed run), evaluation or inference (a served request)
    run_id AS result_id,  -- the run, or the performance event within its day
    experiment,  -- experiment that the model came from
    model_name,  -- model that was trained, evaluated or asked
    model_version,  -- its version
    model_type,  -- model family, such as random_forest
    dataset,  -- dataset that the run was trained on
    run_id,  -- run that trained the model
    accuracy,  -- share of right answers
    NULL::DOUBLE AS precision,  -- macro precision, of events only
    NULL::DOUBLE AS recall,  -- macro recall, of events only
    f1_score,  -- macro F1
    NULL::DOUBLE AS inference_time_ms,  -- wall time of the batch in milliseconds, of events only
    NULL::BIGINT AS batch_size,  -- rows in the batch, of events only
    created_at,  -- start of the run, or time of the event, UTC; its day is the partition
    known_at  -- end of the run or its last point, null if its end is not known; or time of the event, UTC
FROM features.run_features
WHERE created_at >= $start AND created_at < $end AND status = 'completed'
UNION ALL
SELECT
    event.kind,
    event.event_id,
    event.experiment,
    event.model_name,
    event.model_version,
    event.model_type,
    event.dataset,
    event.run_id,
    event.accuracy,
    event.precision,
    event.recall,
    event.f1_score,
    event.inference_time_ms,
    event.batch_size,
    event.timestamp,
    event.timestamp
FROM features.model_performance_events AS event
WHERE event.timestamp >= $start AND event.timestamp < $end
