-- What was served of a view since a time, the newest first.
SELECT served_at, entity, features, served_from, event_timestamp
FROM served_features
WHERE view = %(view)s AND served_at >= %(since)s
ORDER BY served_at DESC
