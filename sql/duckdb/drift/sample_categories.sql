-- How often each category stands in two samples; null is one, and those beyond the {most} that the reference has most of
-- are one together. The names in braces are put in by the program.
WITH counted AS (
    SELECT value, sum(reference) AS reference, sum(current) AS current
    FROM (
        SELECT {column}::VARCHAR AS value, 1 AS reference, 0 AS current FROM {reference}
        UNION ALL
        SELECT {column}::VARCHAR, 0, 1 FROM {current}
    )
    GROUP BY value
),
ranked AS (SELECT *, row_number() OVER (ORDER BY reference DESC, current DESC, value) AS place FROM counted)
SELECT sum(reference)::BIGINT, sum(current)::BIGINT
FROM ranked
GROUP BY least(place, {most} + 1)
ORDER BY least(place, {most} + 1)
