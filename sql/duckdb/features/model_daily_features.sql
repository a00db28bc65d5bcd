-- How a model did on a day, and over the 7 and 28 days until its end. Quality is that of scored evaluations, latency that
-- of served requests. Nothing in a row is known before the day's end, `known_at`. What depends on labels of predictions
-- is not here but in prediction_quality, since nobody notes when a label came. A day without events has no row: the row
-- before it holds until its ttl is over.
-- $start and $end bound the days that are built: [$start, $end) on day, UTC.
-- entity: model_name
-- event_time: day
-- known_time: known_at
-- key: model_name, day
-- ttl: 7d
-- lookback: 27d
-- online: yes
-- owner: team:ml-assets
-- tags: quality, latency
WITH events AS (
    SELECT
        model_name,
        date_trunc('day', timestamp) AS day,
        epoch_us(timestamp) // 86400000000 AS number,
        kind = 'evaluation' AS evaluated,
        if(kind = 'evaluation', accuracy, NULL) AS accuracy,
        if(kind = 'evaluation', f1_score, NULL) AS f1_score,
        if(kind = 'inference' AND isfinite(inference_time_ms), inference_time_ms, NULL) AS latency
    FROM features.model_performance_events
    WHERE timestamp >= $start - INTERVAL 27 DAYS AND timestamp < $end
),
-- Means are sums over counts of whole days, added up in the order of the days, so that the last bits agree however
-- many days are built at once.
days AS (
    SELECT
        model_name,
        day,
        number,
        count(*) FILTER (evaluated) AS evaluations,
        count(*) FILTER (NOT evaluated) AS requests,
        count(accuracy) AS accuracies,
        sum(accuracy ORDER BY accuracy) AS accuracy,
        count(f1_score) AS f1_scores,
        sum(f1_score ORDER BY f1_score) AS f1_score,
        count(latency) AS latencies,
        sum(latency ORDER BY latency) AS latency
    FROM events
    GROUP BY model_name, day, number
),
-- A quantile of a week is none of its days' quantiles: each request counts in the windows of 28 days, as far as they are
-- built.
quantiles AS (
    SELECT
        model_name,
        built AS number,
        quantile_cont(latency, 0.95) FILTER (number = built) AS p95_1d,
        quantile_cont(latency, 0.95) FILTER (number > built - 7) AS p95_7d,
        quantile_cont(latency, 0.95) AS p95_28d
    FROM (
        SELECT
            model_name,
            number,
            latency,
            unnest(range(greatest(number, epoch_us($start) // 86400000000), number + 28)) AS built
        FROM events
        WHERE latency IS NOT NULL
    )
    WHERE (model_name, built) IN (SELECT (model_name, number) FROM days)
    GROUP BY model_name, built
)
SELECT
    model_name,  -- the model
    day,  -- start of the day, UTC; the day is the partition
    day + INTERVAL 1 DAY AS known_at,  -- end of the day, from when the values could be read, UTC
    evaluations AS evaluation_count_1d,  -- scored evaluations on the day
    sum(evaluations) OVER week::BIGINT AS evaluation_count_7d,  -- the same over 7 days
    sum(evaluations) OVER month::BIGINT AS evaluation_count_28d,  -- the same over 28 days
    requests AS request_count_1d,  -- served requests on the day
    sum(requests) OVER week::BIGINT AS request_count_7d,  -- the same over 7 days
    sum(requests) OVER month::BIGINT AS request_count_28d,  -- the same over 28 days
    accuracy / nullif(accuracies, 0) AS avg_accuracy_1d,  -- mean accuracy of the day's evaluations
    list_sum(list(accuracy) OVER week) / nullif(sum(accuracies) OVER week, 0) AS avg_accuracy_7d,  -- the same over 7 days
    list_sum(list(accuracy) OVER month) / nullif(sum(accuracies) OVER month, 0) AS avg_accuracy_28d,  -- the same over 28 days
    f1_score / nullif(f1_scores, 0) AS avg_f1_score_1d,  -- mean macro F1 of the day's evaluations
    list_sum(list(f1_score) OVER week) / nullif(sum(f1_scores) OVER week, 0) AS avg_f1_score_7d,  -- the same over 7 days
    list_sum(list(f1_score) OVER month) / nullif(sum(f1_scores) OVER month, 0) AS avg_f1_score_28d,  -- the same over 28 days
    latency / nullif(latencies, 0) AS avg_inference_time_ms_1d,  -- mean wall time of the day's requests in milliseconds
    list_sum(list(latency) OVER week) / nullif(sum(latencies) OVER week, 0) AS avg_inference_time_ms_7d,  -- the same over 7 days
    list_sum(list(latency) OVER month) / nullif(sum(latencies) OVER month, 0) AS avg_inference_time_ms_28d,  -- the same over 28 days
    p95_1d AS p95_inference_time_ms_1d,  -- p95 of the day's wall times in milliseconds, interpolated
    p95_7d AS p95_inference_time_ms_7d,  -- the same over 7 days
    p95_28d AS p95_inference_time_ms_28d  -- the same over 28 days
FROM days
LEFT JOIN quantiles USING (model_name, number)
WINDOW
    week AS (PARTITION BY model_name ORDER BY number RANGE 6 PRECEDING),
    month AS (PARTITION BY model_name ORDER BY number RANGE 27 PRECEDING)
QUALIFY day >= $start
