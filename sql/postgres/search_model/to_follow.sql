-- What does not follow the alias yet.
SELECT to_follow, indexes_follow FROM search_model
