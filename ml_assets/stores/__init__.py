"""Stores: the mechanics of each, one package a store, on its raw connection.

`postgres_table` is common ground: Chroma's manifest, the truth behind Redis and the locks of the lake lie in
PostgreSQL. Apart from it no store's package imports another's. Nothing here imports dagster.
"""
