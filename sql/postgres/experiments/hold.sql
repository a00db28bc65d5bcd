-- One experiment, which nobody else changes until this transaction has ended.
SELECT origin, status, created_at, completed_at FROM ml_experiments WHERE id = %(id)s FOR UPDATE
