-- Raw rows of the days [$first, $last] of a stream whose keys are unique over all days: a key's latest update
-- decides on which day it stands. Only keys that have a row in these days can stand there.
WITH arrived AS (
    SELECT *
    FROM intake.intake_{stream}
    WHERE quarantine_reason IS NULL
      AND unit_hash IN (SELECT unit_hash FROM live)
),
latest AS (
    SELECT *
    FROM arrived
    WHERE ({key}) IN (SELECT {key} FROM arrived WHERE coalesce(day, DATE '1970-01-01') BETWEEN $first AND $last)
    QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {version}{filled} DESC, {hash} DESC, unit_hash, line) = 1
)
SELECT {columns}
FROM latest
WHERE coalesce(day, DATE '1970-01-01') BETWEEN $first AND $last
