-- Delete what later entries have replaced.
DELETE FROM lake.ledger.writes AS old
WHERE EXISTS (
    SELECT 1 FROM lake.ledger.writes AS new
    WHERE old.table_name = new.table_name AND old."partition" = new."partition" AND new.sequence > old.sequence
)
