-- The last day that anything was rolled up for, without the days to come of clocks that are wrong; null if there is none.
SELECT maxOrNull(toDate(hour, 'UTC')) AS day FROM performance_hourly WHERE hour < now() + INTERVAL 1 DAY
