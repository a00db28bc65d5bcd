-- Its parameters, to the day of an experiment that was given another start.
UPDATE ml_run_params SET created_at = %(created_at)s WHERE run_id = %(id)s
