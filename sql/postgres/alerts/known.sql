-- As much of each alert as tells whether a finding is this one.
SELECT
    alert_id, source, model_name, metric, slice, slice_value, direction, began_at, last_seen_at,
    closed_at IS NULL AS is_open
FROM ml_alerts
