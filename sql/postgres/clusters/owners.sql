-- The documents, or runs, of a table of vectors: the mean of each one's vectors, and what tells that one has changed.
-- {table}, {key} and {owner} are identifiers.
SELECT
    entry.{owner},
    min(entry.title),
    avg(entry.embedding),
    md5(string_agg(concat_ws(' ', entry.{key}, entry.content_hash, entry.model_name), ',' ORDER BY entry.{key}))
FROM {table} AS entry
GROUP BY entry.{owner}
ORDER BY entry.{owner} COLLATE "C"
