-- The alerts of a model.
SELECT *
FROM alerts
WHERE model_name = {model_name:String}
ORDER BY began_at DESC, alert_id
