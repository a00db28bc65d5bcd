-- Runs whose cards are nearest to a vector, nearest first. Vectors of other models are not compared.
-- {conditions} is put together from columns of ml_experiments and bound values, {order} is the distance that
-- the index of the model is of.
SELECT
    run.id AS run_id,
    run.experiment,
    run.model_name,
    run.dataset,
    run.status,
    run.metrics,
    run.parameters,
    card.title,
    1 - (card.embedding <=> %(vector)s::vector) AS score
FROM experiment_embeddings AS card
JOIN (SELECT * FROM ml_experiments AS run WHERE {conditions}) AS run ON run.id = card.run_id
WHERE card.model_name = %(embedder)s AND card.run_id IS DISTINCT FROM %(left_out)s::text
ORDER BY {order}
LIMIT %(k)s
