-- Whether the ledger of writes is there, with the columns that it has now.
SELECT to_regclass('ledger.contracts') IS NOT NULL AND EXISTS (
    SELECT
    FROM pg_attribute
    WHERE attrelid = to_regclass('ledger.writes') AND attname = 'run_id' AND NOT attisdropped
)
