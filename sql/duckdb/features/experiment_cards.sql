-- One run as a short text that a person would search for: what was tried, on what, and how it went.
-- The text is what gets embedded, so that runs can be found by meaning.
-- key: run_id
-- unique: yes
-- tags: runs, text
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
            'Primary metric ' || features.primary_metric || ' ' || printf('%.5g', features.primary_value)
                || if(features.primary_metric_key = features.primary_metric, '', ', logged as ' || features.primary_metric_key)
                || if(features.primary_higher_is_better, '; higher is better.', '; lower is better.'),
            -- By half a percent at least: less is noise. A first letter in capitals begins the sentence.
            CASE
                WHEN abs(features.primary_change) >= 0.005 * abs(features.previous_primary_value)
                    AND features.primary_change <> 0 AND isfinite(features.primary_change)
                    THEN upper(features.primary_metric[1]) || features.primary_metric[2:]
                        || if((features.primary_change > 0) = features.primary_higher_is_better, ' improved', ' worsened')
                        || ' by ' || printf('%.4g', abs(features.primary_change)) || ' against the run before.'
            END,
            'Parameters ' || nullif(parameters.listed, '') || '.',
            'Failed: ' || features.error,
            features.notes,
            'Metrics ' || nullif(metrics.listed, '') || '.'
        ) AS text,
        to_json({
            'experiment': features.experiment,
            'model_name': features.model_name,
            'model_type': features.model_type,
            'dataset': features.dataset,
            'status': features.status,
            'primary_metric': features.primary_metric,
            'primary_value': if(isfinite(features.primary_value), features.primary_value, NULL),
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
    LEFT JOIN (
        SELECT
            run_id,
            string_agg(
                entry.key || '=' || coalesce(
                    printf('%.5g', TRY_CAST(entry.value ->> '$' AS DOUBLE)), trim(entry.value::VARCHAR, '"')
                ),
                ', '
                ORDER BY entry.key
            ) AS listed
        FROM (
            SELECT run_id, unnest(map_entries(metrics::MAP(VARCHAR, JSON))) AS entry
            FROM features.run_features
            WHERE json_type(metrics) = 'OBJECT'
        )
        GROUP BY run_id
    ) AS metrics ON features.run_id = metrics.run_id
)
SELECT run_id, title, text, metadata, sha256(title || chr(10) || text) AS content_hash, created_at
FROM cards
