-- What has texts that can be found.
SELECT DISTINCT entry.{owner} FROM {table} AS entry
