-- The texts of a table of vectors, those of one document beside each other.
SELECT entry.{owner}, entry.title, entry.text FROM {table} AS entry ORDER BY entry.{owner}
