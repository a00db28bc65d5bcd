-- Passages of documents that are as they were when they were cut. {columns} and {table} are identifiers.
SELECT {columns} FROM {table} WHERE document_hash IN (SELECT unnest($document_hashes))
