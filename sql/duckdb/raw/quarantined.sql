-- Quarantined rows of live contents ($live), newest first.
SELECT
    $stream AS stream,
    origin,
    unit,
    line,
    quarantine_reason AS reason,
    raw_text AS text,
    ingested_at AS at
FROM intake.{table}
WHERE quarantine_reason IS NOT NULL
  AND unit_hash IN (SELECT unnest($live::VARCHAR[]))
ORDER BY ingested_at DESC, unit, line
LIMIT $limit
