-- What a model can learn from: each completed run with what it reached, and what was known of its model before it
-- started. Features are point in time: those of run_features look back on runs that had ended strictly before, those of
-- model_daily_features are of the newest day that was over, up to 7 days back.
-- The split is by time. Of N days with such runs the newest N/5, rounded up, are for the test; a row is for training if
-- its label was known a day before the first of them at the latest, and what lies between is under embargo. Rows of a
-- single day are all for training. Another day may move the split of all rows, so the table is built as a whole.
-- entity: run_id
-- event_time: created_at
-- known_time: label_known_at
-- key: run_id
-- owner: team:ml-assets
-- tags: training
WITH labelled AS (
    SELECT *, known_at AS label_known_at
    FROM features.run_features
    WHERE status = 'completed' AND known_at IS NOT NULL AND isfinite(primary_value)
),
test AS (
    SELECT if(count(*) > 1, list_reverse_sort(list(day))[(count(*) + 4) // 5], NULL) AS first_day
    FROM (SELECT DISTINCT date_trunc('day', created_at) AS day FROM labelled)
),
-- The newest day that was over when the run started, unless it is older than the ttl of the view.
known AS (
    SELECT run.run_id, daily.model_name, daily.day
    FROM labelled AS run
    ASOF JOIN features.model_daily_features AS daily
        ON run.model_name = daily.model_name AND run.created_at >= daily.known_at
    WHERE run.created_at <= daily.day + INTERVAL 7 DAYS
)
SELECT
    run.run_id,  -- the run
    run.model_name,  -- model that it trains
    run.created_at,  -- start of the run, UTC: every feature was known then
    run.label_known_at,  -- end of the run, or its last point if that came later, UTC: from then on the label was known
    CASE
        WHEN test.first_day IS NULL OR run.label_known_at <= test.first_day - INTERVAL 1 DAY THEN 'train'
        WHEN run.created_at >= test.first_day THEN 'test'
        ELSE 'embargo'
    END AS split,  -- train, test or embargo (to be left out), by time
    run.primary_value AS label,  -- what the run reached, by the metric that judges it
    run.primary_metric AS label_metric,  -- canonical name of that metric
    run.primary_higher_is_better AS label_higher_is_better,  -- whether a larger label is better
    if(isfinite(run.accuracy), run.accuracy, NULL) AS label_accuracy,  -- accuracy that the run reached, a label as well
    run.experiment,  -- experiment that the run belongs to
    run.model_type,  -- model family, such as random_forest
    run.dataset,  -- dataset that the run is trained on
    run.parameters,  -- hyper-parameters as one JSON object
    run.parameter_count,  -- how many they are
    run.previous_runs,  -- completed runs of the same model before this one started
    run.previous_primary_value,  -- primary value of the last of them that is judged by the same metric
    run.previous_best_primary_value,  -- best of those
    run.previous_accuracy,  -- accuracy of the last of them
    run.previous_best_accuracy,  -- best accuracy of them
    run.previous_completed_at AS run_features__known_at,  -- end of the last of them, UTC: when what is said of them was known
    daily.evaluation_count_1d,  -- the model's scored evaluations on the newest day that was over
    daily.evaluation_count_7d,  -- the same over 7 days
    daily.evaluation_count_28d,  -- the same over 28 days
    daily.request_count_1d,  -- its served requests on that day
    daily.request_count_7d,  -- the same over 7 days
    daily.request_count_28d,  -- the same over 28 days
    daily.avg_accuracy_1d,  -- its mean accuracy on that day
    daily.avg_accuracy_7d,  -- the same over 7 days
    daily.avg_accuracy_28d,  -- the same over 28 days
    daily.avg_f1_score_1d,  -- its mean macro F1 on that day
    daily.avg_f1_score_7d,  -- the same over 7 days
    daily.avg_f1_score_28d,  -- the same over 28 days
    daily.avg_inference_time_ms_1d,  -- its mean wall time a request on that day in milliseconds
    daily.avg_inference_time_ms_7d,  -- the same over 7 days
    daily.avg_inference_time_ms_28d,  -- the same over 28 days
    daily.p95_inference_time_ms_1d,  -- p95 of its wall times on that day in milliseconds
    daily.p95_inference_time_ms_7d,  -- the same over 7 days
    daily.p95_inference_time_ms_28d,  -- the same over 28 days
    daily.day AS model_daily_features__event_time,  -- start of that day, UTC
    daily.known_at AS model_daily_features__known_at  -- end of that day, UTC: when its values were known
FROM labelled AS run
CROSS JOIN test
LEFT JOIN known ON run.run_id = known.run_id
LEFT JOIN features.model_daily_features AS daily ON known.model_name = daily.model_name AND known.day = daily.day
