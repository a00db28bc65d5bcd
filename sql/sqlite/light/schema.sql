-- The light registry: runs, their files and their data in one SQLite file that needs no server. The columns are those
-- of the graph's tables of the same names; times are text in UTC that sorts as time does.
CREATE TABLE ml_experiments (
    id TEXT NOT NULL PRIMARY KEY,
    parent_run_id TEXT,
    experiment TEXT NOT NULL,
    name TEXT,
    model_name TEXT,
    model_version TEXT,
    model_type TEXT,
    dataset TEXT,
    status TEXT NOT NULL,
    parameters TEXT,
    metrics TEXT,
    tags TEXT,
    notes TEXT,
    error TEXT,
    artifact_uri TEXT,
    created_at TEXT NOT NULL,
    completed_at TEXT
) STRICT;
CREATE INDEX experiments_by_time ON ml_experiments (created_at, id);
CREATE INDEX experiments_by_name ON ml_experiments (experiment, created_at);
CREATE INDEX experiments_by_status ON ml_experiments (status);
CREATE INDEX experiments_by_model_type ON ml_experiments (model_type);
-- The content of a file lies in artifacts/, by its SHA-256; `path` is its name within the run.
CREATE TABLE ml_model_artifacts (
    id TEXT NOT NULL PRIMARY KEY,
    experiment_id TEXT NOT NULL REFERENCES ml_experiments (id) ON DELETE CASCADE,
    artifact_type TEXT NOT NULL,
    path TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    metadata TEXT,
    created_at TEXT NOT NULL,
    UNIQUE (experiment_id, path)
) STRICT;
CREATE INDEX artifacts_by_content ON ml_model_artifacts (sha256);
CREATE TABLE ml_training_data (
    id TEXT NOT NULL PRIMARY KEY,
    experiment_id TEXT NOT NULL REFERENCES ml_experiments (id) ON DELETE CASCADE,
    dataset_name TEXT NOT NULL,
    file_path TEXT NOT NULL,
    context TEXT,
    digest TEXT,
    row_count INTEGER,
    feature_count INTEGER,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX training_data_by_experiment ON ml_training_data (experiment_id);
-- What the landing files of the last adoption name: their contents stay until a later adoption no longer names them.
CREATE TABLE landed (
    run_id TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (run_id, sha256)
) STRICT;
-- Tells the landing files of this registry from those of another one.
CREATE TABLE registry (id TEXT NOT NULL) STRICT;
INSERT INTO registry VALUES (lower(hex(randomblob(6))));
