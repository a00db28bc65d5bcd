-- The metrics of the experiments of applications on the days [start, end).
SELECT DISTINCT key FROM ml_run_metrics WHERE origin = 'api' AND created_at >= %(start)s AND created_at < %(end)s
