-- The metric of the completed runs of one parent: the candidates that a run of them was selected from.
SELECT id AS run_id, metrics -> %(metric)s AS value
FROM ml_experiments
WHERE experiment = %(experiment)s AND parent_run_id = %(parent_run_id)s AND status = 'completed'
