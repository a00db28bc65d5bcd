-- The models that made the vectors of the cards.
SELECT DISTINCT model_name FROM experiment_embeddings
