-- Why rows of live contents (`live`, from the ledger) are in quarantine: how many for each reason, the most frequent
-- first, with the newest as an example. A reason is one whatever the file, the line and the value that it names.
WITH told AS (
    SELECT
        row.unit,
        row.line,
        left(row.raw_text, 500) AS text,
        substr(row.quarantine_reason, length(concat(row.unit, ' line ', row.line, ': ')) + 1) AS reason,
        {{'newest': -epoch_us(live.loaded_at), 'unit': row.unit, 'line': row.line}} AS place
    FROM intake.{table} AS row
    JOIN live USING (unit_hash)
    WHERE row.quarantine_reason IS NOT NULL
)
SELECT
    $stream AS stream,
    regexp_replace(
        -- At most sixty characters of a value are shown; within them it may have quotes of its own.
        regexp_replace(reason, $shown, '\1 ...\2'),
        $counted, '\1 ... \2'
    ) AS reason,
    count(*) AS rows,
    count(DISTINCT unit) AS files,
    arg_min(unit, place) AS unit,
    arg_min(line, place) AS line,
    arg_min(coalesce(text, ''), place) AS text
FROM told
GROUP BY ALL
ORDER BY rows DESC, reason
