-- Keep a pin of a former release as of when it was made; one that was moved before stays.
INSERT INTO public.ml_assets_pins
    (name, version, written_at, pinned_at, run_id, hash_version, tables, files, settings)
VALUES (
    %(name)s, %(version)s, %(written_at)s, %(pinned_at)s, %(run_id)s, %(hash_version)s, %(tables)s, %(files)s,
    %(settings)s
)
ON CONFLICT (name) DO NOTHING;
