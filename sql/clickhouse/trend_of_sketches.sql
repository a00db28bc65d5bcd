-- Models by bucket over [start, end), added up from the hourly sketches that are {chosen}. {slice} is what they are told
-- apart by; buckets are counted from a Monday. Squares of parts with means of their own are added as Chan, Golub and LeVeque do (1979).
WITH
{sketch_quantiles},
(squares, counts, sums) -> if(
    arraySum(counts) = 0,
    NULL,
    arraySum(squares) + arraySum(
        (n, total) -> if(n = 0, 0, n * pow(total / n - arraySum(sums) / arraySum(counts), 2)), counts, sums
    )
) AS squares_of,
parts AS (
    SELECT
        fromUnixTimestamp64Micro(
            intDiv(toUnixTimestamp64Micro(hour) - {anchor_us:Int64}, {bucket_us:Int64}) * {bucket_us:Int64} + {anchor_us:Int64},
            'UTC'
        ) AS bucket,
        {slice} AS slice,
        sum(evaluation_count) AS evaluations,
        sum(request_count) AS requests,
        sum(accuracy_count) AS accuracies,
        sum(accuracy_sum) AS accuracy,
        squares_of(groupArray(accuracy_squares), groupArray(accuracy_count), groupArray(accuracy_sum)) AS squares,
        sum(f1_score_count) AS f1_scores,
        sum(f1_score_sum) AS f1_score,
        squares_of(groupArray(f1_score_squares), groupArray(f1_score_count), groupArray(f1_score_sum)) AS f1_squares,
        sum(latency_count) AS timed,
        sum(latency_sum_ms) AS latency,
        squares_of(groupArray(latency_squares), groupArray(latency_count), groupArray(latency_sum_ms)) AS latency_spread,
        sumMap(JSONExtract(latency_bins, 'Array(Int32)'), JSONExtract(latency_counts, 'Array(Int64)')) AS latencies,
        min(latency_min_ms) AS shortest,
        max(latency_max_ms) AS longest,
        max(max_memory_usage_mb) AS memory,
        min(hour) AS first_hour,
        max(last_event_at) AS newest
    FROM performance_sketches
    WHERE {chosen}
        AND hour >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
        AND hour < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
    GROUP BY bucket, slice
)
SELECT
    bucket,
    slice,
    toInt64(evaluations) AS evaluation_count,
    toInt64(requests) AS request_count,
    accuracy / nullIf(accuracies, 0) AS avg_accuracy,
    f1_score / nullIf(f1_scores, 0) AS avg_f1_score,
    latency / nullIf(timed, 0) AS avg_inference_time_ms,
    quantiles[1] AS p50_inference_time_ms,
    quantiles[2] AS p95_inference_time_ms,
    quantiles[3] AS p99_inference_time_ms,
    memory AS max_memory_usage_mb,
    if(accuracies > 1, sqrt(squares / (accuracies - 1)), NULL) AS std_accuracy,
    newest AS until,
    toInt64(accuracies) AS accuracy_count,
    toInt64(f1_scores) AS f1_score_count,
    if(f1_scores > 1, sqrt(f1_squares / (f1_scores - 1)), NULL) AS std_f1_score,
    toInt64(timed) AS latency_count,
    if(timed > 1, sqrt(latency_spread / (timed - 1)), NULL) AS std_inference_time_ms,
    first_hour
FROM (SELECT *, sketch_quantiles(latencies, shortest, longest, [0.5, 0.95, 0.99]) AS quantiles FROM parts)
