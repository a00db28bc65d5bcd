-- The latest completed run of every model, among the runs {rows}.
SELECT * FROM {rows}
WHERE status = 'completed' AND model_name IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY model_name ORDER BY created_at DESC, run_id DESC) = 1
