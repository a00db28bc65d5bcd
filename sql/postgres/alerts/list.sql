-- Alerts with their state at %(now)s, those that matter first.
WITH alerts AS (
    SELECT
        *,
        CASE
            WHEN closed_at IS NOT NULL THEN 'closed'
            WHEN acknowledged_at IS NOT NULL THEN 'acknowledged'
            WHEN snoozed_until > %(now)s THEN 'snoozed'
            ELSE 'open'
        END AS state,
        (
            SELECT min(sent_at) FROM ml_alert_messages AS message
            WHERE message.alert_id = alert.alert_id AND event = 'open'
        ) AS notified_at
    FROM ml_alerts AS alert
)
SELECT
    alert_id, source, model_name, metric, kind, slice, slice_value, direction, severity, state, began_at, opened_at,
    last_seen_at, closed_at, withdrawn, before, after, change, confidence, description, acknowledged_at,
    acknowledged_note, snoozed_until, notified_at
FROM alerts
WHERE
    (%(states)s::text[] IS NULL OR state = ANY (%(states)s))
    AND (%(model_name)s::text IS NULL OR model_name = %(model_name)s)
ORDER BY array_position(ARRAY['open', 'snoozed', 'acknowledged', 'closed'], state), severity, opened_at DESC,
    model_name, metric, slice_value, alert_id
