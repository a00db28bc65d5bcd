-- Ends the alerts of which nothing is found any more: data that came or went later show no change there.
UPDATE ml_alerts SET closed_at = %(now)s, withdrawn = true WHERE alert_id = ANY (%(alert_ids)s)
