-- A run's own vector as text, and the model that made it.
SELECT embedding::text, model_name FROM experiment_embeddings WHERE run_id = %(run_id)s
