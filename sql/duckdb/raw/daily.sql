-- Raw rows of the days [$first, $last] of a stream whose keys are unique within a day. Of the rows of a key
-- the greatest version wins, then the one with more values, then the greatest hash: neither the order of the
-- files nor their number matters. {stream}, {columns}, {key}, {version}, {filled} and {hash} come from the
-- stream's contract, `live` from the ledger.
SELECT {columns}
FROM intake.intake_{stream}
WHERE day BETWEEN $first AND $last
  AND quarantine_reason IS NULL
  AND unit_hash IN (SELECT unit_hash FROM live)
QUALIFY row_number() OVER (PARTITION BY day, {key} ORDER BY {version}{filled} DESC, {hash} DESC, unit_hash, line) = 1
