-- What is to be told to the URL of hash %(url_hash)s: alerts that opened, and those that are over of which it was told.
-- An alert is told once; again after it was told to be over and was not, or when it was let be until a time and goes on.
WITH told AS (
    SELECT
        alert_id,
        max(sent_at) FILTER (WHERE event = 'open') AS opened,
        max(sent_at) FILTER (WHERE event = 'over') AS over
    FROM ml_alert_messages
    WHERE url_hash = %(url_hash)s
    GROUP BY alert_id
)
SELECT
    alert_id, source, model_name, metric, slice, slice_value, severity, began_at, withdrawn, change, description,
    CASE WHEN closed_at IS NULL THEN 'open' ELSE 'over' END AS event
FROM ml_alerts LEFT JOIN told USING (alert_id)
WHERE
    (
        closed_at IS NULL
        AND acknowledged_at IS NULL
        AND (snoozed_until IS NULL OR snoozed_until <= %(now)s)
        AND (opened IS NULL OR opened <= over OR opened < snoozed_until)
    )
    OR (closed_at IS NOT NULL AND opened > coalesce(over, '-infinity'))
ORDER BY closed_at IS NOT NULL, severity, opened_at DESC, model_name, metric, slice_value, alert_id
