-- An alert is let be until a time, and then sent again if it is still open.
UPDATE ml_alerts
SET snoozed_until = %(until)s, acknowledged_at = NULL, acknowledged_note = NULL
WHERE alert_id = %(alert_id)s
