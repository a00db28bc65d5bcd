-- What ml_model_artifacts must hold of the runs {rows}: every file in the lists that they keep in their tags, the first of
-- a path with the size and checksum that stand there. Runs without a list have the files that were found when their day was
-- built, which must lie on that day.
SELECT experiment_id, path, size_bytes, sha256
FROM (
    SELECT
        run.id AS experiment_id,
        coalesce(json_extract(file.value, '$.path'), '') AS path,
        iif(json_type(file.value, '$.size_bytes') = 'integer', json_extract(file.value, '$.size_bytes'), NULL) AS size_bytes,
        iif(json_type(file.value, '$.sha256') = 'text', json_extract(file.value, '$.sha256'), NULL) AS sha256,
        min(file.key) -- from whose row SQLite takes the other columns
    FROM {rows} AS run, json_each(run.tags, '$."ml_assets.artifacts"') AS file
    WHERE json_type(run.tags, '$."ml_assets.artifacts"') = 'array' AND file.type = 'object'
    GROUP BY 1, 2 -- not by name: json_each has a column `path`, too
)
UNION ALL
SELECT mine.experiment_id, json_extract(mine.metadata, '$.path'), mine.size_bytes, mine.sha256
FROM {rows} AS run
JOIN ml_model_artifacts AS mine ON mine.experiment_id = run.id AND mine.day = substr(run.created_at, 1, 10)
WHERE json_type(run.tags, '$."ml_assets.artifacts"') IS NOT 'array'
