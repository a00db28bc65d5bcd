-- The pinned baselines.
SELECT model_name, start_day, end_day, note, pinned_at FROM ml_performance_baselines ORDER BY model_name
