-- The contract by which a table was last written.
SELECT contract FROM write_contracts WHERE asset = {asset:String} ORDER BY sequence DESC LIMIT 1
