-- Note by which contract a table is written now.
INSERT INTO lake.ledger.contracts (asset, contract, sequence)
SELECT $asset, $contract, coalesce(max(sequence), 0) + 1 FROM lake.ledger.contracts WHERE asset = $asset
