-- What is served, if it was ever decided.
SELECT model_name, settings, moved_from, indexes_follow FROM search_model
