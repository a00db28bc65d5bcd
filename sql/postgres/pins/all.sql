-- All pins, or the one of a name, the oldest version first.
SELECT name, version, written_at, pinned_at, run_id, hash_version, tables, files, settings
FROM public.ml_assets_pins
WHERE %(name)s::text IS NULL OR name = %(name)s
ORDER BY version, name;
