-- Has the vectors beside those that are served belong to what is served of their owners now. What is
-- asked of the table is states.sql.
UPDATE search_vectors AS kept
SET state = served.state
FROM ({states}) AS served
WHERE kept.table_name = %(table)s AND kept.owner = served.owner
