-- The models that have answered, {model_name:String} first, each with its first and last day.
SELECT model_name, min(day) AS first_day, max(day) AS last_day
FROM estimated_accuracy
GROUP BY model_name
ORDER BY model_name != {model_name:String}, model_name
LIMIT 20
