-- What each model is compared with: the days [start_day, end_day) that somebody has pinned. A model without a row here
-- is compared with its first days.
CREATE TABLE IF NOT EXISTS ml_performance_baselines (
    model_name text PRIMARY KEY,
    start_day date NOT NULL,
    end_day date NOT NULL,
    note text NOT NULL DEFAULT '',
    pinned_at timestamptz NOT NULL DEFAULT now(),
    CHECK (start_day < end_day)
);
