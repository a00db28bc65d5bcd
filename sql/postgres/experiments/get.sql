SELECT * FROM ml_experiments WHERE id = %(id)s
