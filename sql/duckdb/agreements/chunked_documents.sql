-- The documents of which {rows} holds passages.
SELECT document_id, max(source) AS source FROM {rows} GROUP BY document_id
