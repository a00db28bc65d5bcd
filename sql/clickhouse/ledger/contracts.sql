-- Of each table, the contract by which it was last written.
SELECT argMax(contract, sequence) FROM write_contracts GROUP BY asset ORDER BY asset
