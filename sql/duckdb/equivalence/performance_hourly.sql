-- The numbers of performance_hourly for the days [$start, $end), computed of the lake's events by this engine. Sums are of
-- integers, so that they are the same in whatever order the rows come: shares in units of 2^-60, milliseconds of 2^-30.
-- Quantiles are interpolated between two events by the formula of ClickHouse's quantileExactInclusive; quantile_cont
-- weighs the two, and differs from it in the last bit.
WITH events AS (
    SELECT date_trunc('hour', timestamp) AS hour, *
    FROM features.model_performance_events
    WHERE timestamp >= $start AND timestamp < $end
),
counted AS (
    SELECT
        hour,
        model_name,
        count(*) FILTER (kind = 'evaluation') AS evaluation_count,
        count(*) FILTER (kind = 'inference') AS request_count,
        count(DISTINCT run_id) AS run_count,
        count(accuracy) AS accuracy_count,
        coalesce(sum(trunc(accuracy * 1152921504606846976)::HUGEINT), 0)::VARCHAR AS accuracy_sum,
        count(f1_score) AS f1_score_count,
        coalesce(sum(trunc(f1_score * 1152921504606846976)::HUGEINT), 0)::VARCHAR AS f1_score_sum,
        count(inference_time_ms) AS inference_time_count,
        -- Above 1e9 the integer would no longer fit into 63 bits, beyond which DuckDB's own conversion is not exact.
        coalesce(
            sum(trunc(least(inference_time_ms, 1e9) * 1073741824)::HUGEINT) FILTER (inference_time_ms IS NOT NULL), 0
        )::VARCHAR AS inference_time_sum,
        max(inference_time_ms) AS longest_ms,
        max(memory_usage_mb) AS max_memory_usage_mb,
        stddev_samp(accuracy) AS std_accuracy
    FROM events
    GROUP BY hour, model_name
),
placed AS (
    SELECT
        hour,
        model_name,
        inference_time_ms AS ms,
        row_number() OVER (PARTITION BY hour, model_name ORDER BY inference_time_ms) AS place,
        inference_time_count AS n,
        0.5::DOUBLE * (n - 1) + 1 AS at_p50,
        0.95::DOUBLE * (n - 1) + 1 AS at_p95,
        0.99::DOUBLE * (n - 1) + 1 AS at_p99
    FROM events JOIN counted USING (hour, model_name)
    WHERE inference_time_ms IS NOT NULL
),
neighbours AS (
    SELECT
        hour,
        model_name,
        any_value(at_p50 - trunc(at_p50)) AS share_p50,
        max(ms) FILTER (place = trunc(at_p50)) AS low_p50,
        max(ms) FILTER (place = least(trunc(at_p50) + 1, n)) AS high_p50,
        any_value(at_p95 - trunc(at_p95)) AS share_p95,
        max(ms) FILTER (place = trunc(at_p95)) AS low_p95,
        max(ms) FILTER (place = least(trunc(at_p95) + 1, n)) AS high_p95,
        any_value(at_p99 - trunc(at_p99)) AS share_p99,
        max(ms) FILTER (place = trunc(at_p99)) AS low_p99,
        max(ms) FILTER (place = least(trunc(at_p99) + 1, n)) AS high_p99
    FROM placed
    GROUP BY hour, model_name
)
SELECT
    counted.*,
    low_p50 + share_p50 * (high_p50 - low_p50) AS p50_inference_time_ms,
    low_p95 + share_p95 * (high_p95 - low_p95) AS p95_inference_time_ms,
    low_p99 + share_p99 * (high_p99 - low_p99) AS p99_inference_time_ms
FROM counted LEFT JOIN neighbours USING (hour, model_name)
