-- Where most of a column lies, and its numbers above 0, from a part of its reference. What lies outside is put into the
-- outermost bins; an unlucky part costs time, and no exactness. The names in braces are put in by the program.
SELECT
    quantile_cont(value, [0.001, 0.999]),
    quantile_cont(value, [0.001, 0.999]) FILTER (value > 0),
    count(*) FILTER (value < 0) / count(*)
FROM (SELECT {column}::DOUBLE AS value FROM {reference} USING SAMPLE {percent} PERCENT (system))
WHERE isfinite(value)
