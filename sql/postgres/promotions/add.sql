-- Note a decision.
INSERT INTO ml_promotions (
    decided_by, model_name, model_version, promotable, checks, evidence, alias, moved_from, notes
)
VALUES (
    %(decided_by)s, %(model_name)s, %(model_version)s, %(promotable)s, %(checks)s::jsonb, %(evidence)s::jsonb,
    %(alias)s, %(moved_from)s, %(notes)s
)
RETURNING id, decided_at
