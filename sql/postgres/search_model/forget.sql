-- Forgets the vectors beside those that are served.
DELETE FROM search_vectors
