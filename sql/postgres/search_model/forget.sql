-- Forgets the vectors of a table's texts beside those that are served.
DELETE FROM search_vectors WHERE table_name = %(table)s
