-- Tags of events that are gone. Not by NOT IN, which PostgreSQL answers row by row once the events outgrow its memory.
DELETE FROM asset_event_tags
WHERE NOT EXISTS (SELECT 1 FROM event_logs WHERE event_logs.id = asset_event_tags.event_id)
