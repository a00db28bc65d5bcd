-- Somebody has seen an alert: it is neither sent any more nor fails the check.
UPDATE ml_alerts
SET acknowledged_at = %(now)s, acknowledged_note = %(note)s, snoozed_until = NULL
WHERE alert_id = %(alert_id)s
