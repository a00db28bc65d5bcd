-- Ends the episodes that are not among the findings any more.
UPDATE ml_run_findings AS episode
SET closed_at = %(now)s
WHERE closed_at IS NULL
    AND NOT EXISTS (
        SELECT FROM unnest(%(run_ids)s::text[], %(kinds)s::text[]) AS found (run_id, kind)
        WHERE found.run_id = episode.run_id AND found.kind = episode.kind
    )
