-- Forget what a table held that was dropped.
DELETE FROM lake.ledger.writes WHERE table_name = $table_name
