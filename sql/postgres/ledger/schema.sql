-- What was taken in from where. The rows themselves lie in the lake, in intake.intake_<stream>.
CREATE SCHEMA IF NOT EXISTS ledger;

-- One visit of a stream's sources by one run.
CREATE TABLE IF NOT EXISTS ledger.ingests (
    ingest_id text PRIMARY KEY,
    stream text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- A content that was read: a file's bytes, or an MLflow run as it stood. Each is read once.
CREATE TABLE IF NOT EXISTS ledger.units (
    stream text NOT NULL,
    unit_hash text NOT NULL,
    origin text NOT NULL CHECK (origin IN ('landing', 'mlflow')),
    unit text NOT NULL,
    ingest_id text NOT NULL REFERENCES ledger.ingests,
    state text NOT NULL CHECK (state IN ('loading', 'live', 'retired')),
    rows_read bigint NOT NULL DEFAULT 0,
    rows_quarantined bigint NOT NULL DEFAULT 0,
    loaded_at timestamptz,
    PRIMARY KEY (stream, unit_hash)
);
CREATE INDEX IF NOT EXISTS units_by_ingest ON ledger.units (ingest_id);

-- Good rows of a content by day, and how many of them stand in the raw table (null until it is rebuilt).
CREATE TABLE IF NOT EXISTS ledger.unit_days (
    stream text NOT NULL,
    unit_hash text NOT NULL,
    day date NOT NULL,
    rows_good bigint NOT NULL,
    rows_loaded bigint,
    PRIMARY KEY (stream, unit_hash, day),
    FOREIGN KEY (stream, unit_hash) REFERENCES ledger.units ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS unit_days_by_day ON ledger.unit_days (stream, day);

-- Where a content was found: a path below landing/<stream>, or a run of a tracking store. `fingerprint` tells
-- cheaply whether to look again; a retired place is not loaded again before it changes.
CREATE TABLE IF NOT EXISTS ledger.places (
    stream text NOT NULL,
    root text NOT NULL,
    unit text NOT NULL,
    fingerprint text NOT NULL,
    unit_hash text NOT NULL,
    retired boolean NOT NULL DEFAULT false,
    PRIMARY KEY (stream, root, unit)
);
CREATE INDEX IF NOT EXISTS places_by_content ON ledger.places (stream, unit_hash);

-- Days whose raw rows may have changed, and the state in which they were last rebuilt. A day is due while
-- touched.seq > settled.seq. Streams without days use 1970-01-01.
CREATE TABLE IF NOT EXISTS ledger.touched_days (
    stream text NOT NULL,
    day date NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (stream, day)
);
CREATE TABLE IF NOT EXISTS ledger.settled_days (
    stream text NOT NULL,
    day date NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (stream, day)
);
