-- One run as a short text that a person would search for: what was tried, on what, and how it went.
WITH cards AS (
    SELECT
        features.run_id,
        features.created_at,
        concat_ws(
            ' on ', coalesce(features.name, features.model_name, features.model_type, features.run_id), features.dataset
        ) AS title,
        concat_ws(
            chr(10),
            'Experiment ' || features.experiment || '.',
            'Model ' || features.model_name || coalesce(' version ' || features.model_version, '') || '.',
            'Model type ' || features.model_type || '.',
            'Dataset ' || features.dataset || '.',
            'Status ' || features.status || '.',
            'Accuracy ' || round(features.accuracy, 4) || '.',
            'F1 score ' || round(features.f1_score, 4) || '.',
            'Loss ' || round(features.loss, 4) || '.',
            CASE
                WHEN abs(features.accuracy_change) >= 0.005
                    THEN 'Accuracy ' || if(features.accuracy_change > 0, 'rose', 'fell') || ' by '
                        || round(abs(features.accuracy_change), 4) || ' against the run before.'
            END,
            'Parameters ' || nullif(parameters.listed, '') || '.',
            'Failed: ' || features.error,
            features.notes
        ) AS text,
        to_json({
            'experiment': features.experiment,
            'model_name': features.model_name,
            'model_type': features.model_type,
            'dataset': features.dataset,
            'status': features.status,
            'accuracy': if(isfinite(features.accuracy), features.accuracy, NULL),
            'created_at': strftime(features.created_at, '%Y-%m-%dT%H:%M:%S.%fZ')
        }) AS metadata
    FROM features.run_features AS features
    LEFT JOIN (
        SELECT run_id, string_agg(entry.key || '=' || trim(entry.value::VARCHAR, '"'), ', ' ORDER BY entry.key) AS listed
        FROM (
            SELECT run_id, unnest(map_entries(parameters::MAP(VARCHAR, JSON))) AS entry
            FROM raw.raw_runs
            WHERE json_type(parameters) = 'OBJECT'
        )
        GROUP BY run_id
    ) AS parameters ON features.run_id = parameters.run_id
)
SELECT run_id, title, text, metadata, sha256(title || chr(10) || text) AS content_hash, created_at
FROM cards
