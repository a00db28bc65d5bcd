-- Delete what later entries have replaced.
DELETE FROM lake.ledger.contracts AS old
WHERE EXISTS (
    SELECT 1 FROM lake.ledger.contracts AS new
    WHERE old.asset = new.asset AND new.sequence > old.sequence
)
