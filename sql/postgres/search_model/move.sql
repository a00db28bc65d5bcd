-- Moves the alias.
INSERT INTO search_model (model_name, settings, moved_from, evidence, indexes_follow)
VALUES (%(model_name)s, %(settings)s, %(moved_from)s, %(evidence)s, false)
ON CONFLICT (is_only) DO UPDATE
SET model_name = excluded.model_name, settings = excluded.settings, moved_from = excluded.moved_from,
    evidence = excluded.evidence, indexes_follow = false, moved_at = now()
