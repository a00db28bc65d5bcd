-- Note by which contract a table is written now.
INSERT INTO ledger.contracts AS old (asset, contract)
VALUES (%s, %s)
ON CONFLICT (asset) DO UPDATE SET contract = excluded.contract WHERE old.contract <> excluded.contract
