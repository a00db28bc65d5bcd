-- What was written to each partition of each table, and by which contract each table was written. Both are only
-- appended to, the entry of the highest sequence counts: updates of one table by two writers would conflict.
CREATE SCHEMA IF NOT EXISTS lake.ledger;

CREATE TABLE IF NOT EXISTS lake.ledger.writes (
    table_name VARCHAR,
    "partition" VARCHAR,
    sequence BIGINT,
    rows BIGINT,
    bytes BIGINT,
    content_hash VARCHAR,
    hash_version VARCHAR,
    written_at TIMESTAMPTZ,
    run_id VARCHAR
);

CREATE TABLE IF NOT EXISTS lake.ledger.contracts (
    asset VARCHAR,
    contract VARCHAR,
    sequence BIGINT
);
