-- Notes that a URL took the messages.
INSERT INTO ml_alert_messages (alert_id, url_hash, event, sent_at)
SELECT alert_id, %(url_hash)s, event, %(now)s
FROM unnest(%(alert_ids)s::text[], %(events)s::text[]) AS sent (alert_id, event)
ON CONFLICT DO NOTHING
