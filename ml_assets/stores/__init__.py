"""Stores: the mechanics of each, one package a store, on its raw connection.

`postgres_table` is common ground: the manifest of Chroma and Qdrant, the truth behind Redis and the locks of the lake
lie in PostgreSQL; and so is `vectors`, which tables are kept by in Chroma and Qdrant. Apart from these no store's
package imports another's. Nothing here imports dagster.
"""
