-- All texts with their titles, of which the index of words is made.
SELECT entry.{key}, entry.title, entry.text
FROM {table} AS entry
ORDER BY entry.{key}
