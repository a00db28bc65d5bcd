-- What was written to each partition of each table, and by which contract each table was written last.
CREATE TABLE IF NOT EXISTS ml_assets_writes (
    table_name TEXT,
    partition TEXT,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    content_hash TEXT NOT NULL,
    hash_version TEXT NOT NULL,
    written_at TEXT NOT NULL,
    run_id TEXT,
    PRIMARY KEY (table_name, partition)
);

CREATE TABLE IF NOT EXISTS ml_assets_contracts (
    asset TEXT PRIMARY KEY,
    contract TEXT NOT NULL
);
