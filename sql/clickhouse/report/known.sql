-- From when to when there are events of a model, without those that claim to be of a time to come; how many these are.
-- No row where there is no event at all.
SELECT
    minOrNullIf(timestamp, timestamp < fromUnixTimestamp64Micro({until_us:Int64}, 'UTC')) AS first_at,
    maxOrNullIf(timestamp, timestamp < fromUnixTimestamp64Micro({until_us:Int64}, 'UTC')) AS last_at,
    toInt64(countIf(timestamp >= fromUnixTimestamp64Micro({until_us:Int64}, 'UTC'))) AS later_count
FROM ml_model_performance
WHERE model_name = {model_name:String}
HAVING count() > 0
