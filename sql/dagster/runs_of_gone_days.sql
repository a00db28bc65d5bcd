-- Runs with events of days before the first partition. Events of no run stay, of which there are other kinds, too.
SELECT DISTINCT run_id
FROM event_logs
WHERE "partition" LIKE '____-__-__' AND "partition" < :first AND run_id <> ''
