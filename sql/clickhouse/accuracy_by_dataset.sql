-- Mean accuracy by dataset and day of [start, end), for the datasets with the most evaluations. A model whose
-- dataset is unknown stands under its own name.
WITH evaluations AS (
    SELECT coalesce(dataset, model_name) AS dataset, toDate(timestamp, 'UTC') AS day, accuracy
    FROM ml_model_performance
    WHERE timestamp >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
        AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
        AND accuracy IS NOT NULL
)
SELECT dataset, day, avg(accuracy) AS accuracy
FROM evaluations
WHERE dataset IN (SELECT dataset FROM evaluations GROUP BY dataset ORDER BY count() DESC, dataset LIMIT {lines:UInt8})
GROUP BY dataset, day
ORDER BY dataset, day
