-- The contracts by which the tables of one store were last written; `postgres/`, say, begins their assets' names.
SELECT contract
FROM ledger.contracts
WHERE starts_with(asset, %s)
ORDER BY asset
