-- From when to when the events of a model were rolled up, as sql/clickhouse/report/known.sql asks of the events.
SELECT
    toDateTime64(minOrNullIf(day, day < until), 0, 'UTC') AS first_at,
    toDateTime64(maxOrNullIf(day, day < until), 0, 'UTC') AS last_at,
    toInt64(sumIf(evaluation_count + request_count, day >= until)) AS later_count
FROM (
    SELECT *, toDate32(fromUnixTimestamp64Micro({until_us:Int64}, 'UTC')) + 1 AS until
    FROM performance_daily
    WHERE model_name = {model_name:String}
)
HAVING count() > 0
