-- What was served online, of the requests that are logged: a row a view and entity. Entity and features are JSON as the
-- online store has it, which may hold NaN, so they are text.
CREATE TABLE IF NOT EXISTS served_features (
    served_at timestamptz NOT NULL,
    view text NOT NULL,
    entity text NOT NULL,
    features text NOT NULL,
    served_from text NOT NULL,
    event_timestamp timestamptz
);
CREATE INDEX IF NOT EXISTS served_features_view ON served_features (view, served_at);
