-- How many alerts are not over at %(now)s, by what found them, what people have said of them, and how bad it is.
SELECT
    source,
    CASE
        WHEN acknowledged_at IS NOT NULL THEN 'acknowledged'
        WHEN snoozed_until > %(now)s THEN 'snoozed'
        ELSE 'open'
    END AS state,
    severity,
    count(*)
FROM ml_alerts
WHERE closed_at IS NULL
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
