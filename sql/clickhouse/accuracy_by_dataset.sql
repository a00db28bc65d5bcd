-- Mean accuracy by dataset and day of [start, end), for the datasets with the most evaluations. A model whose
-- dataset is unknown stands under its own name. Days that are being built are of the events; those before them were
-- added up already, and are not looked through again each time that a day is built.
WITH evaluations AS (
    SELECT
        if(dataset = '', model_name, dataset) AS name,
        toDate(hour, 'UTC') AS day,
        accuracy_sum AS accuracies,
        accuracy_count AS evaluations
    FROM performance_sketches
    WHERE hour >= fromUnixTimestamp64Micro({start_us:Int64}, 'UTC')
        AND hour < fromUnixTimestamp64Micro({built_us:Int64}, 'UTC')
        AND accuracy_count > 0
    UNION ALL
    SELECT coalesce(dataset, model_name), toDate(timestamp, 'UTC'), assumeNotNull(accuracy), 1
    FROM ml_model_performance
    WHERE timestamp >= fromUnixTimestamp64Micro({built_us:Int64}, 'UTC')
        AND timestamp < fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')
        AND accuracy IS NOT NULL
)
SELECT name AS dataset, day, sum(accuracies) / sum(evaluations) AS accuracy
FROM evaluations
WHERE name IN (SELECT name FROM evaluations GROUP BY name ORDER BY sum(evaluations) DESC, name LIMIT {lines:UInt8})
GROUP BY name, day
ORDER BY name, day
