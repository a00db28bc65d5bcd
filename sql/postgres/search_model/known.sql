-- The vectors of a model beside the one that is served, for some keys.
SELECT content_hash, embedding
FROM search_candidates
WHERE table_name = %(table)s AND model_name = %(model_name)s AND key = ANY(%(keys)s)
