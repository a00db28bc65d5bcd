-- How often each value stands in what models were asked, what they answered and how sure they were, by model, version
-- and feature. A feature of the input is a value of its JSON object, one of an object in it named by both names with a
-- dot between them; what lies in a list is no feature, and the list has no value of its own. `windows` has model_name,
-- window_start and window_end, [start, end), at most one row a model; $start and $end enclose all of them.
WITH chosen AS (
    SELECT model_name, coalesce(model_version, '') AS model_version, input_features, prediction, confidence
    FROM features.ml_predictions JOIN windows USING (model_name)
    WHERE created_at >= $start AND created_at < $end AND created_at >= window_start AND created_at < window_end
),
documents AS (
    SELECT model_name, model_version, 'input' AS subject, 'input_features' AS whole, input_features AS document
    FROM chosen
    UNION ALL
    SELECT model_name, model_version, 'prediction', 'prediction', prediction FROM chosen
),
leaves AS (
    SELECT
        model_name,
        model_version,
        subject,
        CASE path WHEN '$' THEN coalesce(leaf.key, whole) ELSE substr(leaf.fullkey, 3) END AS feature,
        CASE
            WHEN leaf.type = 'NULL' THEN 'null'
            WHEN leaf.type IN ('DOUBLE', 'BIGINT', 'UBIGINT', 'HUGEINT') THEN 'number'
            WHEN leaf.type = 'ARRAY' THEN 'list'
            ELSE 'category'
        END AS form,
        if(form = 'number', leaf.atom, NULL)::DOUBLE AS number,
        if(form = 'category', leaf.atom ->> '$', NULL) AS category
    FROM documents, json_tree(document) AS leaf
    WHERE leaf.type <> 'OBJECT'
        -- A name may well look like a place in a list.
        AND (leaf.path = '$' AND leaf.fullkey NOT LIKE '$[%' OR NOT regexp_matches(leaf.fullkey, '\[\d+\]'))
    UNION ALL
    SELECT model_name, model_version, 'confidence', 'confidence', 'number', confidence, NULL
    FROM chosen
    WHERE confidence IS NOT NULL
)
SELECT model_name, model_version, subject, feature, form, number, category, count(*) AS value_count
FROM leaves
GROUP BY ALL
