-- What was written to each partition of each table, and by which contract each table was written last: of the tables
-- here, of those that Redis has a copy of, and of Chroma's collections.
CREATE SCHEMA IF NOT EXISTS ledger;

CREATE TABLE IF NOT EXISTS ledger.writes (
    store text NOT NULL,
    table_name text NOT NULL,
    partition text NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    content_hash text NOT NULL,
    hash_version text NOT NULL,
    written_at timestamptz NOT NULL,
    run_id text,
    PRIMARY KEY (store, table_name, partition)
);

-- Former versions noted no run.
ALTER TABLE ledger.writes ADD COLUMN IF NOT EXISTS run_id text;

CREATE TABLE IF NOT EXISTS ledger.contracts (
    asset text PRIMARY KEY,
    contract text NOT NULL
);
