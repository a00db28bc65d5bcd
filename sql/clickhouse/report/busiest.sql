-- The models with the most events in [start, end).
SELECT model_name
FROM performance_hourly
WHERE hour >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC') AND hour < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
GROUP BY model_name
ORDER BY sum(evaluation_count + request_count) DESC, model_name
LIMIT {most:UInt32}
