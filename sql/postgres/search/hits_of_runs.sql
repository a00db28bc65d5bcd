-- What is known of the runs that were found.
SELECT id, experiment, model_name, dataset, status FROM ml_experiments WHERE id = ANY(%(ids)s)
