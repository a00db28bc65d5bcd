-- Values that runs have of one field, to name the nearest one to what was asked for.
SELECT DISTINCT {field} AS value FROM ml_experiments WHERE {field} IS NOT NULL LIMIT 10000
