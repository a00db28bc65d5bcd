-- How a model did in an hour: the mean and deviation of its accuracy, the runs behind it, and the time it took. Trainings,
-- evaluations and requests are rows of their own, so that no mean mixes them; runs are runs and not rows, and the
-- deviation of a single value is unknown, not 0.
-- $start and $end bound the days that are built: [$start, $end) on hour, UTC.
-- entity: experiment, model_name, kind
-- event_time: hour
-- known_time: known_at
-- key: experiment, model_name, kind, hour
-- owner: team:ml-assets
-- tags: quality, latency
SELECT
    experiment,  -- experiment that the model came from; null if it is not known
    model_name,  -- the model
    kind,  -- training (completed runs), evaluation or inference (served requests)
    date_trunc('hour', created_at) AS hour,  -- start of the hour, UTC; its day is the partition
    avg(accuracy ORDER BY accuracy) FILTER (isfinite(accuracy)) AS avg_accuracy,  -- mean of the accuracies
    -- The squares of larger ones are beyond a DOUBLE, which would fail.
    stddev_samp(accuracy ORDER BY accuracy) FILTER (abs(accuracy) < 1e150) AS std_accuracy,  -- sample deviation of those below 1e150; null of fewer than two
    count(DISTINCT run_id) AS run_count,  -- different runs behind the results
    count(*) AS result_count,  -- results: runs, evaluations or requests
    quantile_cont(inference_time_ms, 0.95)
        FILTER (isfinite(inference_time_ms)) AS p95_inference_time_ms,  -- p95 of the wall times in milliseconds, interpolated
    if(
        count(known_at) = count(*), greatest(max(known_at), hour + INTERVAL 1 HOUR), NULL
    ) AS known_at  -- from when all of it could be read, UTC: the hour's end, or the last run's; null if a run's is not known
FROM features.ml_experiment_results
WHERE created_at >= $start AND created_at < $end AND model_name IS NOT NULL
GROUP BY experiment, model_name, kind, hour
