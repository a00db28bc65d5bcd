"""IO managers: how tables are written and read, one module a store, on one base.

A write is the same everywhere: the rows of the run's partitions are checked against the contract, hashed,
kept aside, and put in place by one commit of the store. Readers see the old rows or the new ones.
"""
