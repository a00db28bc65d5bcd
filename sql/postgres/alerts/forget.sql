-- Removes the alerts of models that have no other runs than these, and what was sent of them.
DELETE FROM ml_alerts
WHERE model_name IN (
    SELECT model_name FROM ml_experiments
    WHERE model_name IS NOT NULL
    GROUP BY model_name
    HAVING bool_and(id = ANY (%(run_ids)s))
)
