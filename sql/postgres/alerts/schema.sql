-- What is known of each alert: the episode as it was last found, and what people have said of it. What was sent of it is
-- in ml_alert_messages, a row a message that was taken; a URL stands there by its hash alone.
CREATE TABLE IF NOT EXISTS ml_alerts (
    alert_id text PRIMARY KEY,
    source text NOT NULL,
    model_name text NOT NULL,
    metric text NOT NULL,
    kind text NOT NULL,
    slice text NOT NULL,
    slice_value text NOT NULL,
    direction text NOT NULL,
    severity text NOT NULL,
    began_at timestamptz NOT NULL,
    opened_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    closed_at timestamptz,
    withdrawn boolean NOT NULL DEFAULT false,
    before double precision,
    after double precision,
    change double precision,
    confidence double precision,
    description text NOT NULL,
    acknowledged_at timestamptz,
    acknowledged_note text,
    snoozed_until timestamptz
);
CREATE TABLE IF NOT EXISTS ml_alert_messages (
    alert_id text NOT NULL REFERENCES ml_alerts ON DELETE CASCADE,
    url_hash text NOT NULL,
    event text NOT NULL CHECK (event IN ('open', 'over')),
    sent_at timestamptz NOT NULL,
    PRIMARY KEY (alert_id, url_hash, event, sent_at)
);
