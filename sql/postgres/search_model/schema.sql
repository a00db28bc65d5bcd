-- The vectors of models beside the one that is served: of the next one while it is judged, and of the former one.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS search_candidates (
    table_name text NOT NULL,
    key text NOT NULL,
    model_name text NOT NULL,
    content_hash text NOT NULL,
    embedding vector NOT NULL,
    PRIMARY KEY (table_name, model_name, key)
);
-- The alias: one row, which says what model is served, whatever the settings say, and whether the indexes that are made
-- of PostgreSQL's vectors follow it yet. Without a row the settings say it.
CREATE TABLE IF NOT EXISTS search_model (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    model_name text NOT NULL,
    settings jsonb NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now(),
    moved_from text NOT NULL,
    evidence jsonb NOT NULL,
    indexes_follow boolean NOT NULL
);
