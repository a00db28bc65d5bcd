-- What was found wrong with runs: a row an episode, which is open from when it was found until it no longer holds.
-- `since` is when it began by the run's own record; `told` names those who have been told of it.
CREATE TABLE IF NOT EXISTS ml_run_findings (
    run_id text NOT NULL,
    kind text NOT NULL,
    since timestamptz NOT NULL,
    opened_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    closed_at timestamptz,
    evidence text NOT NULL,
    told text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (run_id, kind, opened_at)
);
CREATE UNIQUE INDEX IF NOT EXISTS ml_run_findings_open ON ml_run_findings (run_id, kind) WHERE closed_at IS NULL;
