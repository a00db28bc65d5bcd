-- Begins an episode for each finding that has none open, and brings those up to date that are.
INSERT INTO ml_run_findings AS episode (run_id, kind, since, opened_at, last_seen_at, evidence)
SELECT run_id, kind, since, %(now)s, %(now)s, evidence
FROM unnest(%(run_ids)s::text[], %(kinds)s::text[], %(sinces)s::timestamptz[], %(evidence)s::text[])
    AS found (run_id, kind, since, evidence)
ON CONFLICT (run_id, kind) WHERE closed_at IS NULL
DO UPDATE SET last_seen_at = excluded.last_seen_at, evidence = excluded.evidence
