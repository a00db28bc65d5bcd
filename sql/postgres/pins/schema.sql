-- Versions of the lake that maintenance keeps, a row a name; in the lake's catalog, so that whoever maintains the lake
-- sees them, and a catalog that is restored has its own.
-- `tables`: by asset, the rows and the content hash that a table had; `files`: the feature files of that time by name;
-- `settings`: what else decides about their rows.
CREATE TABLE IF NOT EXISTS public.ml_assets_pins (
    name text PRIMARY KEY,
    version bigint NOT NULL,
    written_at timestamptz NOT NULL,
    pinned_at timestamptz NOT NULL DEFAULT now(),
    run_id text,
    hash_version text NOT NULL,
    tables jsonb NOT NULL,
    files jsonb NOT NULL,
    settings jsonb NOT NULL
);
