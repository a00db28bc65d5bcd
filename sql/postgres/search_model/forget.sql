-- Forgets the vectors of all models but these.
DELETE FROM search_candidates WHERE model_name <> ALL(%(kept)s)
