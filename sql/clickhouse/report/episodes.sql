-- Rows of a model in a table of episodes that lie in [start, end), at least in part.
SELECT *
FROM {table:Identifier}
WHERE model_name = {model_name:String}
    AND opened_at < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
    AND (closed_at IS NULL OR closed_at >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC'))
ORDER BY opened_at, metric, slice, slice_value
