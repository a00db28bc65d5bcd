-- Notes what does not follow the alias yet.
UPDATE search_model SET to_follow = %(assets)s, indexes_follow = %(assets)s::text[] = '{}'
