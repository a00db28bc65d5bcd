-- Which entries of Chroma's collections count, with the vectors' own bits, and how often that has changed.
CREATE TABLE IF NOT EXISTS ledger.chroma_manifest (
    collection text NOT NULL,
    key text NOT NULL,
    id text NOT NULL,
    partition text NOT NULL,
    vector bytea NOT NULL,
    PRIMARY KEY (collection, key)
);

CREATE TABLE IF NOT EXISTS ledger.chroma_versions (
    collection text PRIMARY KEY,
    version integer NOT NULL
);
