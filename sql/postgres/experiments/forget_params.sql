-- Parameters of one experiment that have become null.
DELETE FROM ml_run_params WHERE run_id = %(id)s AND key = ANY(%(keys)s)
