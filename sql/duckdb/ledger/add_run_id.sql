-- Bring the ledger of a former version up to date.
ALTER TABLE lake.ledger.writes ADD COLUMN IF NOT EXISTS run_id VARCHAR
