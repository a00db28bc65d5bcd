-- Keep a version by a name; nothing is returned if the name is taken.
INSERT INTO public.ml_assets_pins (name, version, written_at, run_id, hash_version, tables, files, settings)
VALUES (
    %(name)s, %(version)s, %(written_at)s, %(run_id)s, %(hash_version)s, %(tables)s, %(files)s, %(settings)s
)
ON CONFLICT (name) DO NOTHING
RETURNING name, version, written_at, pinned_at, run_id, hash_version, tables, files, settings;
