-- The judged questions. A question is in the words of its newest judgment.
SELECT
    set_name,
    query_id,
    arg_max(query, (judged_at, query)) AS query,
    list(document_id ORDER BY document_id) AS document_ids,
    list(relevance ORDER BY document_id) AS relevances
FROM raw.raw_judgments
GROUP BY set_name, query_id
ORDER BY set_name, query_id
