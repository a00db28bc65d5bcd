-- The alias: one row, which says what is served, whatever the settings say: the model, how documents are cut for it and
-- how its vectors are indexed; and which tables are made of PostgreSQL's vectors and do not follow them yet. Without a row
-- the settings say it.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS search_model (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    model_name text NOT NULL,
    settings jsonb NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now(),
    moved_from text NOT NULL,
    evidence jsonb NOT NULL,
    indexes_follow boolean NOT NULL
);
-- Null in a row of before there was this column: all indexes that there are.
ALTER TABLE search_model ADD COLUMN IF NOT EXISTS to_follow text[];
-- It had vectors by key, which another cut of a document does not share.
DROP TABLE IF EXISTS search_candidates;
-- The vectors of texts beside those that are served: of what is to be served while it is built, and of what was. State is
-- that of what was served of the owner, a document or a run: where it is another one, the text may be gone.
CREATE TABLE IF NOT EXISTS search_vectors (
    table_name text NOT NULL,
    model_name text NOT NULL,
    content_hash text NOT NULL,
    owner text NOT NULL,
    state text NOT NULL,
    embedding vector NOT NULL,
    PRIMARY KEY (table_name, model_name, content_hash, owner)
);
