-- Which of some texts are there and let through by a filter.
SELECT entry.{key}, entry.{owner}
FROM {table} AS entry
WHERE entry.{key} = ANY(%(keys)s) AND {condition}
