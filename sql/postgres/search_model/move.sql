-- Moves the alias.
INSERT INTO search_model (model_name, settings, moved_from, evidence, indexes_follow, to_follow)
VALUES (%(model_name)s, %(settings)s, %(moved_from)s, %(evidence)s, %(to_follow)s::text[] = '{}', %(to_follow)s)
ON CONFLICT (is_only) DO UPDATE
SET model_name = excluded.model_name, settings = excluded.settings, moved_from = excluded.moved_from,
    evidence = excluded.evidence, indexes_follow = excluded.indexes_follow, to_follow = excluded.to_follow,
    moved_at = now()
