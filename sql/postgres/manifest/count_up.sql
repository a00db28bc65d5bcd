-- Give the collection a new version, since its manifest has changed.
INSERT INTO ledger.chroma_versions AS old
VALUES (%(collection)s, 1)
ON CONFLICT (collection) DO UPDATE SET version = old.version + 1
