-- Names of the metrics that the runs in `asked` have logged.
SELECT DISTINCT key FROM raw.raw_metrics WHERE run_id IN (SELECT run_id FROM asked) AND {files} ORDER BY key
