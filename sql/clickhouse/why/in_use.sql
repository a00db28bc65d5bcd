-- What of a model answered from `from_us` until `until_us`, and the mean of a metric before and since an episode began.
SELECT
    model_version,
    run_id,
    min(timestamp) AS first_at,
    max(timestamp) AS last_at,
    toInt64(countIf({metric:Identifier} IS NOT NULL AND timestamp < fromUnixTimestamp64Micro({began_us:Int64}, 'UTC')))
        AS before_count,
    avgIf({metric:Identifier}, timestamp < fromUnixTimestamp64Micro({began_us:Int64}, 'UTC')) AS before_value,
    toInt64(countIf({metric:Identifier} IS NOT NULL AND timestamp >= fromUnixTimestamp64Micro({began_us:Int64}, 'UTC')))
        AS after_count,
    avgIf({metric:Identifier}, timestamp >= fromUnixTimestamp64Micro({began_us:Int64}, 'UTC')) AS after_value
FROM ml_model_performance
WHERE model_name = {model_name:String}
    AND timestamp >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({until_us:Int64}, 'UTC')
    AND ({slice:String} != 'dataset' OR coalesce(dataset, '') = {slice_value:String})
GROUP BY model_version, run_id
ORDER BY first_at, last_at, run_id
LIMIT 1000
