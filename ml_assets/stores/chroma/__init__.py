"""Chroma: a manifest in PostgreSQL names the entries that count; the index can be made again from its source."""
