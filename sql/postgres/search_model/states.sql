-- What is served of each document, or run, as one hash. {table} and {owner} are identifiers.
SELECT {owner} AS owner, md5(string_agg(content_hash, ',' ORDER BY content_hash)) AS state
FROM {table}
GROUP BY 1
