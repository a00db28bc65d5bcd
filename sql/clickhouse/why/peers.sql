-- By dataset, how many models answered on a day, and which of them became worse in the same way within a day of it.
WITH
    worse AS (
        SELECT model_name
        FROM performance_regressions
        WHERE kind = {kind:String}
            AND began_at >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC') - INTERVAL 1 DAY
            AND began_at < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC') + INTERVAL 1 DAY
    )
SELECT
    coalesce(dataset, '') AS dataset,
    toInt64(uniqExact(model_name)) AS models,
    toInt64(uniqExactIf(model_name, model_name IN (SELECT model_name FROM worse))) AS worse,
    arraySort(groupUniqArrayIf(10)(model_name, model_name IN (SELECT model_name FROM worse))) AS names
FROM ml_model_performance
WHERE timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
    AND (kind = 'evaluation' OR {kind:String} != 'quality')
GROUP BY dataset
ORDER BY dataset
