-- The row of a feature view that counted when an entity was served: the newest that was known then and not too old.
-- {entity}, {known}, {ttl}, {order}, {columns} and {table} are put together from the view's columns.
SELECT logged.__logged_number, {columns}
FROM logged
JOIN {table} AS feature ON {entity} AND {known} AND {ttl}
QUALIFY row_number() OVER (PARTITION BY logged.__logged_number ORDER BY {order}) = 1
