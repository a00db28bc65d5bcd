-- Pins the baseline of a model in place of the one that it had.
INSERT INTO ml_performance_baselines (model_name, start_day, end_day, note)
VALUES (%(model_name)s, %(start_day)s, %(end_day)s, %(note)s)
ON CONFLICT (model_name) DO UPDATE
SET start_day = excluded.start_day, end_day = excluded.end_day, note = excluded.note, pinned_at = now()
