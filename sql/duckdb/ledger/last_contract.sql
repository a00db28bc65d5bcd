-- The contract by which a table was last written; null if it never was.
SELECT arg_max(contract, sequence) FROM lake.ledger.contracts WHERE asset = $asset
