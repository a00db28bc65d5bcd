-- The open episodes, and whether they are new to %(reader)s, who is told of them now.
WITH told AS (
    UPDATE ml_run_findings
    SET told = told || %(reader)s::text
    WHERE closed_at IS NULL AND NOT %(reader)s = ANY (told)
    RETURNING run_id, kind
)
SELECT run_id, kind, since, opened_at, last_seen_at, evidence, told.run_id IS NOT NULL AS new
FROM ml_run_findings AS episode LEFT JOIN told USING (run_id, kind)
WHERE closed_at IS NULL
ORDER BY opened_at, run_id, kind
