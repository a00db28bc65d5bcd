-- Writes what was found of alerts, where that is new; what people have said of them stays.
INSERT INTO ml_alerts (
    alert_id, source, model_name, metric, kind, slice, slice_value, direction, severity, began_at, opened_at,
    last_seen_at, closed_at, before, after, change, confidence, description
)
SELECT
    alert_id, source, model_name, metric, kind, slice, slice_value, direction, severity, began_at, opened_at,
    last_seen_at, closed_at, before, after, change, confidence, description
FROM jsonb_to_recordset(%(alerts)s::jsonb) AS found (
    alert_id text, source text, model_name text, metric text, kind text, slice text, slice_value text, direction text,
    severity text, began_at timestamptz, opened_at timestamptz, last_seen_at timestamptz, closed_at timestamptz,
    before double precision, after double precision, change double precision, confidence double precision,
    description text
)
ON CONFLICT (alert_id) DO UPDATE SET
    kind = excluded.kind,
    -- Of a model that is judged by dataset now.
    slice = excluded.slice,
    slice_value = excluded.slice_value,
    severity = excluded.severity,
    began_at = excluded.began_at,
    opened_at = excluded.opened_at,
    last_seen_at = excluded.last_seen_at,
    closed_at = excluded.closed_at,
    withdrawn = false,
    before = excluded.before,
    after = excluded.after,
    change = excluded.change,
    confidence = excluded.confidence,
    description = excluded.description
WHERE
    ml_alerts.withdrawn
    OR (
        ml_alerts.kind, ml_alerts.severity, ml_alerts.began_at, ml_alerts.opened_at, ml_alerts.last_seen_at,
        ml_alerts.closed_at, ml_alerts.before, ml_alerts.after, ml_alerts.change, ml_alerts.confidence,
        ml_alerts.description
    ) IS DISTINCT FROM (
        excluded.kind, excluded.severity, excluded.began_at, excluded.opened_at, excluded.last_seen_at,
        excluded.closed_at, excluded.before, excluded.after, excluded.change, excluded.confidence, excluded.description
    )
