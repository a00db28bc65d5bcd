-- Passages of some documents, as they were cut before.
SELECT {columns} FROM {table} WHERE document_id IN (SELECT unnest($document_ids))
