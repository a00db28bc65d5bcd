-- The newest row of each entity of a feature view, of those that are known $now and not older than the view's TTL.
-- {columns}, {table}, {conditions}, {entity} and {order} are put together from the view's columns.
SELECT {columns}
FROM {table}
WHERE {conditions}
QUALIFY row_number() OVER (PARTITION BY {entity} ORDER BY {order}) = 1
