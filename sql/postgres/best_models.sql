-- The best model of each dataset by the accuracy that its runs reported.
SELECT dataset, model_name, runs, accuracy
FROM (
    SELECT
        dataset,
        model_name,
        count(*) OVER (PARTITION BY dataset) AS runs,
        accuracy,
        row_number() OVER (PARTITION BY dataset ORDER BY accuracy DESC, created_at DESC, id) AS place
    FROM (
        SELECT id, dataset, model_name, created_at, (metrics ->> 'accuracy')::double precision AS accuracy
        FROM ml_experiments
        WHERE status = 'completed' AND dataset IS NOT NULL AND jsonb_typeof(metrics -> 'accuracy') = 'number'
    ) AS scored
) AS ranked
WHERE place = 1
ORDER BY dataset
