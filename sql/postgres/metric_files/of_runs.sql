-- All files that are known, and whether each holds points of some runs: in one statement, so of one moment.
SELECT
    path,
    file_id IN (SELECT file_id FROM ledger.metric_file_runs WHERE run_id = ANY(%(runs)s))
FROM ledger.metric_files
