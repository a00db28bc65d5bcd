-- A table follows the alias.
UPDATE search_model
SET to_follow = array_remove(to_follow, %(asset)s), indexes_follow = array_remove(to_follow, %(asset)s) = '{}'
