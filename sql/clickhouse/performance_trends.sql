-- How a model did over the 7 days up to each day of [first, last], beside the 7 days before those and beside its
-- baseline: the days pinned for it, or its first {first_days}. Means are exact; quantiles are of the sketches, and off by
-- half a percent at most. Requests are counted by the day, of the days since the model's first one. A baseline is there
-- from its last day on.
WITH
{sketch_quantiles},
(now, before) -> if(before = 0, NULL, now / before - 1) AS change_of,
days AS (
    SELECT
        model_name,
        toDate32(hour, 'UTC') AS date,
        sum(request_count) AS requests,
        sum(accuracy_count) AS accuracies,
        sum(accuracy_sum) AS accuracy,
        sum(f1_score_count) AS f1_scores,
        sum(f1_score_sum) AS f1_score,
        sumMap(JSONExtract(latency_bins, 'Array(Int32)'), JSONExtract(latency_counts, 'Array(Int64)')) AS latencies,
        min(latency_min_ms) AS lowest,
        max(latency_max_ms) AS highest
    FROM performance_sketches
    WHERE hour >= toDateTime64({first:Date32} - 13, 6, 'UTC') AND hour < toDateTime64({last:Date32} + 1, 6, 'UTC')
    GROUP BY model_name, date
),
windows AS (
    SELECT
        model_name,
        date + back AS day,
        sumIf(requests, back < 7) AS new_requests,
        sumIf(requests, back >= 7) AS old_requests,
        sumIf(accuracies, back < 7) AS new_accuracies,
        sumIf(accuracies, back >= 7) AS old_accuracies,
        sumIf(accuracy, back < 7) AS new_accuracy,
        sumIf(accuracy, back >= 7) AS old_accuracy,
        sumIf(f1_scores, back < 7) AS new_f1_scores,
        sumIf(f1_scores, back >= 7) AS old_f1_scores,
        sumIf(f1_score, back < 7) AS new_f1_score,
        sumIf(f1_score, back >= 7) AS old_f1_score,
        sumMapIf(latencies.1, latencies.2, back < 7) AS new_latencies,
        sumMapIf(latencies.1, latencies.2, back >= 7) AS old_latencies,
        minIf(lowest, back < 7) AS new_lowest,
        minIf(lowest, back >= 7) AS old_lowest,
        maxIf(highest, back < 7) AS new_highest,
        maxIf(highest, back >= 7) AS old_highest
    FROM days
    ARRAY JOIN range(14) AS back
    WHERE date + back BETWEEN {first:Date32} AND {last:Date32}
    GROUP BY model_name, day
),
baselines AS (
    SELECT
        model_name,
        started,
        pin_first IS NOT NULL AS pinned,
        coalesce(pin_first, started) AS ref_first,
        coalesce(pin_last, started + {first_days:Int32} - 1) AS ref_last
    FROM (SELECT model_name, min(day) AS started FROM performance_daily GROUP BY model_name) AS seen
    LEFT JOIN (
        SELECT pin.1 AS model_name, toNullable(pin.2) AS pin_first, toNullable(pin.3) AS pin_last
        FROM (
            SELECT arrayJoin(arrayZip({models:Array(String)}, {firsts:Array(Date32)}, {lasts:Array(Date32)})) AS pin
        )
    ) AS pins USING (model_name)
    SETTINGS join_use_nulls = 1
),
-- {baseline_days} are the days of all baselines; of them those of the model's own count.
references AS (
    SELECT
        model_name,
        started,
        pinned,
        ref_first,
        ref_last,
        sumIf(request_count, date BETWEEN ref_first AND ref_last) AS ref_requests,
        sumIf(accuracy_count, date BETWEEN ref_first AND ref_last) AS ref_accuracies,
        sumIf(accuracy_sum, date BETWEEN ref_first AND ref_last) AS ref_accuracy,
        sumIf(f1_score_count, date BETWEEN ref_first AND ref_last) AS ref_f1_scores,
        sumIf(f1_score_sum, date BETWEEN ref_first AND ref_last) AS ref_f1_score,
        sumMapIf(bins, counts, date BETWEEN ref_first AND ref_last) AS ref_latencies,
        minIf(latency_min_ms, date BETWEEN ref_first AND ref_last) AS ref_lowest,
        maxIf(latency_max_ms, date BETWEEN ref_first AND ref_last) AS ref_highest
    FROM baselines
    LEFT JOIN (
        SELECT
            *,
            toDate32(hour, 'UTC') AS date,
            JSONExtract(latency_bins, 'Array(Int32)') AS bins,
            JSONExtract(latency_counts, 'Array(Int64)') AS counts
        FROM performance_sketches
        WHERE toYYYYMMDD(hour) IN {baseline_days:Array(UInt32)}
    ) AS sketches USING (model_name)
    GROUP BY model_name, started, pinned, ref_first, ref_last
),
compared AS (
    SELECT
        *,
        day >= ref_last AS known,
        sketch_quantiles(new_latencies, new_lowest, new_highest, [0.5, 0.95, 0.99]) AS new_quantiles,
        sketch_quantiles(old_latencies, old_lowest, old_highest, [0.5, 0.95, 0.99]) AS old_quantiles,
        sketch_quantiles(ref_latencies, ref_lowest, ref_highest, [0.5, 0.95, 0.99]) AS ref_quantiles,
        toInt64(least(7, dateDiff('day', started, day) + 1)) AS new_days,
        toInt64(greatest(0, least(7, dateDiff('day', started, day) - 6))) AS old_days,
        toInt64(greatest(1, dateDiff('day', greatest(ref_first, started), ref_last) + 1)) AS ref_days
    FROM windows
    INNER JOIN references USING (model_name)
)
SELECT
    day,
    model_name,
    line.1 AS metric,
    line.2 AS value,
    line.4 AS previous_value,
    if(known, line.6, NULL) AS baseline_value,
    change_of(value, previous_value) AS previous_change,
    change_of(value, baseline_value) AS baseline_change,
    toInt64(line.3) AS value_count,
    toInt64(line.5) AS previous_count,
    if(known, toInt64(line.7), 0) AS baseline_count,
    ref_first AS baseline_first,
    ref_last AS baseline_last,
    pinned::Bool AS baseline_pinned
FROM compared
ARRAY JOIN [
    (
        'accuracy',
        new_accuracy / nullIf(new_accuracies, 0), new_accuracies,
        old_accuracy / nullIf(old_accuracies, 0), old_accuracies,
        ref_accuracy / nullIf(ref_accuracies, 0), ref_accuracies
    ),
    (
        'f1_score',
        new_f1_score / nullIf(new_f1_scores, 0), new_f1_scores,
        old_f1_score / nullIf(old_f1_scores, 0), old_f1_scores,
        ref_f1_score / nullIf(ref_f1_scores, 0), ref_f1_scores
    ),
    (
        'p50_inference_time_ms',
        new_quantiles[1], arraySum(new_latencies.2),
        old_quantiles[1], arraySum(old_latencies.2),
        ref_quantiles[1], arraySum(ref_latencies.2)
    ),
    (
        'p95_inference_time_ms',
        new_quantiles[2], arraySum(new_latencies.2),
        old_quantiles[2], arraySum(old_latencies.2),
        ref_quantiles[2], arraySum(ref_latencies.2)
    ),
    (
        'p99_inference_time_ms',
        new_quantiles[3], arraySum(new_latencies.2),
        old_quantiles[3], arraySum(old_latencies.2),
        ref_quantiles[3], arraySum(ref_latencies.2)
    ),
    (
        'request_count',
        new_requests / nullIf(new_days, 0), new_requests,
        old_requests / nullIf(old_days, 0), old_requests,
        ref_requests / nullIf(ref_days, 0), ref_requests
    )
] AS line
WHERE line.3 + line.5 > 0
ORDER BY day, model_name, metric
