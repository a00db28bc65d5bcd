-- Quarantined rows of live contents (`live`, from the ledger), newest first.
SELECT
    $stream AS stream,
    live.origin,
    row.unit,
    row.line,
    row.quarantine_reason AS reason,
    row.raw_text AS text,
    live.loaded_at AS at
FROM intake.{table} AS row
JOIN live USING (unit_hash)
WHERE row.quarantine_reason IS NOT NULL
ORDER BY live.loaded_at DESC, row.unit, row.line
LIMIT $limit
