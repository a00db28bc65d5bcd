-- Rows of a model in a table by day, of the days [start, end).
SELECT *
FROM {table:Identifier}
WHERE model_name = {model_name:String}
    AND day >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND day < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
ORDER BY day, slice, slice_value
