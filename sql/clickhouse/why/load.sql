-- How much a model was asked before and since an episode began: requests an hour with requests, and rows a request.
WITH timestamp < fromUnixTimestamp64Micro({began_us:Int64}, 'UTC') AS is_before
SELECT
    countIf(is_before) / nullIf(uniqExactIf(toStartOfHour(timestamp), is_before), 0) AS before_requests,
    countIf(NOT is_before) / nullIf(uniqExactIf(toStartOfHour(timestamp), NOT is_before), 0) AS after_requests,
    avgIf(batch_size, is_before) AS before_batch,
    avgIf(batch_size, NOT is_before) AS after_batch
FROM ml_model_performance
WHERE model_name = {model_name:String}
    AND kind = 'inference'
    AND timestamp >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({until_us:Int64}, 'UTC')
