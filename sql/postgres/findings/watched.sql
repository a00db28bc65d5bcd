-- Runs that are watched: those that run, and those that have ended since %(ended_after)s.
SELECT id AS run_id, experiment, dataset, status, created_at, metrics
FROM ml_experiments
WHERE status = 'running' OR completed_at > %(ended_after)s
ORDER BY created_at DESC, id
LIMIT %(limit)s
