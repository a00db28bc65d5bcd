-- stream: runs
-- glob: automlbenchmark/*.csv
--
-- Results of the AutoML benchmark (openml/automlbenchmark): one row a framework, task and fold. A run without
-- a result has failed, and `info` says why. `utc` is the time at which the result was written, so the run began
-- `duration` seconds before. Older files have no `params`; where there are some, they are a Python dict.
WITH result AS (
    SELECT NULL::VARCHAR AS params WHERE false
    UNION ALL BY NAME
    SELECT * FROM read_csv($file, all_varchar = true, header = true)
)
SELECT
    concat_ws('/', 'automl', task, framework, fold, mode, tag, utc) AS run_id,
    'automlbenchmark' AS experiment,
    concat(framework, ' on ', task, ', fold ', fold) AS name,
    framework AS model_name,
    version AS model_version,
    framework AS model_type,
    task AS dataset,
    if(result IS NULL, 'failed', 'completed') AS status,
    json_merge_patch(
        coalesce(replace(params, '''', '"'), '{}')::JSON,
        json_object('fold', fold::INTEGER, 'seed', seed::BIGINT, 'mode', mode)
    ) AS parameters,
    -- A merge patch drops what is null.
    json_merge_patch('{}', json_object(
        'result', result::DOUBLE,
        'accuracy', acc::DOUBLE,
        'auc', auc::DOUBLE,
        'log_loss', logloss::DOUBLE,
        'models', models::DOUBLE
    )) AS metrics,
    json_object('openml_task', id, 'channel', tag) AS tags,
    info AS error,
    (utc || 'Z')::TIMESTAMPTZ - to_milliseconds((duration::DOUBLE * 1000)::BIGINT) AS created_at,
    (utc || 'Z')::TIMESTAMPTZ AS completed_at
FROM result
