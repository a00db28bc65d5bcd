-- The keys of the texts that a filter lets through, as long as they are few. {table}, {key} and {owner} are identifiers,
-- {condition} is put together from columns and bound values.
SELECT entry.{key}, entry.{owner}
FROM {table} AS entry
WHERE {condition}
LIMIT %(most)s
