-- The indexes hold the vectors of the model that is served.
UPDATE search_model SET indexes_follow = true WHERE model_name = %(model_name)s
