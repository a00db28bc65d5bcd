-- Episodes, the newest first: of one model or of all, those that were seen since a time, the open ones alone if asked.
SELECT *, if(closed_at IS NULL, 'open', 'closed') AS state
FROM performance_regressions
WHERE ({model_name:String} = '' OR model_name = {model_name:String})
    AND last_seen_at >= fromUnixTimestamp64Micro({since_us:Int64}, 'UTC')
    AND ({open_only:UInt8} = 0 OR closed_at IS NULL)
ORDER BY opened_at DESC, model_name, metric, slice, slice_value
