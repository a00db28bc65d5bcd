-- Of every table that was written, the contract that it was last written by.
SELECT arg_max(contract, sequence) FROM lake.ledger.contracts GROUP BY asset
