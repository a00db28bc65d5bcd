-- The statements of this user in our databases that took the most time since they were last counted from zero,
-- constants as $1. {view} is pg_stat_statements in its schema; with track = all it counts a statement within a function
-- apart from the same one outside.
SELECT
    min(counted.query) AS statement,
    datname AS database,
    sum(counted.calls)::bigint AS calls,
    sum(counted.total_exec_time) AS total_ms,
    sum(counted.total_exec_time) / sum(counted.calls) AS mean_ms,
    max(counted.max_exec_time) AS max_ms,
    sum(counted.rows)::bigint AS rows
FROM {view} AS counted JOIN pg_database AS d ON d.oid = counted.dbid
WHERE counted.userid = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    AND (datname = current_database() OR datname = ANY(%(databases)s))
    AND counted.calls > 0
GROUP BY counted.queryid, datname
ORDER BY total_ms DESC, statement
LIMIT %(limit)s
