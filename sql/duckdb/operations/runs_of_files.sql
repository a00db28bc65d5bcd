-- The runs that have points in each of some files of the raw metrics.
SELECT DISTINCT filename, run_id FROM raw.raw_metrics WHERE filename IN ({paths})
