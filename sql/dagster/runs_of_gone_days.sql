-- Runs with events of days before the first partition.
SELECT DISTINCT run_id
FROM event_logs
WHERE "partition" LIKE '____-__-__' AND "partition" < :first
