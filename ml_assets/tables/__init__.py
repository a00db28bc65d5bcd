"""Tables: what every write shares, whatever the store: types, validation, staging, hashing, evolution.

What belongs here: what follows from a contract and from rows alone. What does not: any store, and Dagster.
"""
