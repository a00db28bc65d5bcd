-- What the evaluations of each model were by day, as a drop is judged by: their number, mean and the sum of their squared
-- distances from it, of each measure. A model with several datasets is judged on each of them: what changes with the share
-- of a dataset is no change of the model. Rows are known if all evaluations of the day tell theirs.
WITH
    several AS (
        SELECT model_name
        FROM ml_model_performance
        WHERE kind = 'evaluation'
        GROUP BY model_name
        HAVING uniqExact(dataset) > 1
    ),
    evaluations AS (
        SELECT
            model_name,
            model_name IN (SELECT model_name FROM several) AS by_dataset,
            if(by_dataset, coalesce(dataset, ''), '') AS slice_value,
            toDate32(timestamp, 'UTC') AS day,
            accuracy,
            precision,
            recall,
            f1_score,
            batch_size
        FROM ml_model_performance
        WHERE kind = 'evaluation'
    )
SELECT
    model_name,
    if(by_dataset, 'dataset', 'all') AS slice,
    slice_value,
    day,
    if(countIf(coalesce(batch_size, 0) = 0) = 0, toFloat64(sum(batch_size)), NULL) AS rows,
    toFloat64(count(accuracy)) AS accuracy_count,
    avg(accuracy) AS accuracy_mean,
    varPopStable(accuracy) * count(accuracy) AS accuracy_squares,
    toFloat64(count(precision)) AS precision_count,
    avg(precision) AS precision_mean,
    varPopStable(precision) * count(precision) AS precision_squares,
    toFloat64(count(recall)) AS recall_count,
    avg(recall) AS recall_mean,
    varPopStable(recall) * count(recall) AS recall_squares,
    toFloat64(count(f1_score)) AS f1_score_count,
    avg(f1_score) AS f1_score_mean,
    varPopStable(f1_score) * count(f1_score) AS f1_score_squares
FROM evaluations
GROUP BY model_name, by_dataset, slice_value, day
ORDER BY model_name, slice_value, day
