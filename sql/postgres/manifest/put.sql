-- Name the staged entries in the place of those that their keys had.
INSERT INTO ledger.chroma_manifest AS old
SELECT %(collection)s, key, id, partition, vector
FROM live
ON CONFLICT (collection, key) DO UPDATE
SET id = excluded.id, partition = excluded.partition, vector = excluded.vector
WHERE (old.id, old.partition) <> (excluded.id, excluded.partition)
