"""ClickHouse: one partition a commit, a lock and a redo log a table."""
