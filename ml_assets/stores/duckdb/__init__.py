"""The lake: DuckDB with DuckLake, whose catalog is PostgreSQL."""
