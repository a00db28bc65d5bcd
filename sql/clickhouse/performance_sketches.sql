-- Hourly states of [start, end) that can be added up over any hours, models, versions and datasets: counts and sums, which
-- stay exact, and a histogram of latencies, whose quantiles are off by half a percent at most (DDSketch: Masson, Rim and
-- Lee, VLDB 2019). A latency x is in the bin ceil(100 ln x), so that a bin's ends differ by 1 %; zero and infinity have
-- bins of their own. Spread is kept as the sum of squared deviations from the mean of the row's own values.
WITH bins AS (
    SELECT
        toDateTime64(toStartOfHour(timestamp), 6, 'UTC') AS hour,
        model_name,
        coalesce(model_version, '') AS version,
        coalesce(dataset, '') AS set,
        multiIf(
            inference_time_ms IS NULL, NULL,
            inference_time_ms <= 0, -100000,
            isInfinite(assumeNotNull(inference_time_ms)), 100000,
            toInt32(ceil(100 * log(inference_time_ms)))
        ) AS bin,
        countIf(kind = 'evaluation') AS evaluations,
        countIf(kind = 'inference') AS requests,
        count(accuracy) AS accuracies,
        sum(accuracy) AS accuracy_total,
        varPopStableState(accuracy) AS accuracy_spread,
        count(f1_score) AS f1_scores,
        sum(f1_score) AS f1_score_total,
        varPopStableState(f1_score) AS f1_score_spread,
        count(inference_time_ms) AS latencies,
        sum(inference_time_ms) AS latency_total,
        varPopStableState(inference_time_ms) AS latency_spread,
        min(inference_time_ms) AS latency_least,
        max(inference_time_ms) AS latency_most,
        max(memory_usage_mb) AS memory_most,
        max(timestamp) AS last_at
    FROM ml_model_performance
    WHERE timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
        AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
    GROUP BY hour, model_name, version, set, bin
)
SELECT
    hour,
    model_name,
    version AS model_version,
    set AS dataset,
    toInt64(sum(evaluations)) AS evaluation_count,
    toInt64(sum(requests)) AS request_count,
    toInt64(sum(accuracies)) AS accuracy_count,
    coalesce(sum(accuracy_total), 0) AS accuracy_sum,
    if(accuracy_count = 0, 0, coalesce(varPopStableMerge(accuracy_spread), 0) * accuracy_count) AS accuracy_squares,
    toInt64(sum(f1_scores)) AS f1_score_count,
    coalesce(sum(f1_score_total), 0) AS f1_score_sum,
    if(f1_score_count = 0, 0, coalesce(varPopStableMerge(f1_score_spread), 0) * f1_score_count) AS f1_score_squares,
    toInt64(sum(latencies)) AS latency_count,
    coalesce(sum(latency_total), 0) AS latency_sum_ms,
    if(latency_count = 0, 0, coalesce(varPopStableMerge(latency_spread), 0) * latency_count) AS latency_squares,
    min(latency_least) AS latency_min_ms,
    max(latency_most) AS latency_max_ms,
    toString(arraySort(groupArrayIf(assumeNotNull(bin), bin IS NOT NULL))) AS latency_bins,
    toString(arraySort((n, b) -> b, groupArrayIf(latencies, bin IS NOT NULL), groupArrayIf(assumeNotNull(bin), bin IS NOT NULL)))
        AS latency_counts,
    max(memory_most) AS max_memory_usage_mb,
    max(last_at) AS last_event_at
FROM bins
GROUP BY hour, model_name, version, set
ORDER BY hour, model_name, version, set
