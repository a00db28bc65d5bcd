-- Raw rows of the days [$first, $last] of a stream in which MLflow's own key is wider than that of landed rows: at one
-- step and moment MLflow may have several values, and each is a row. A landed row that repeats one of them is that
-- row. One that does not corrects what stands there: it takes the place of all of them, and of several such rows the
-- fuller stands, then the one with the greater hash. {columns}, {key}, {mlflow_key}, {version}, {filled} and {hash} come
-- from the stream's contract, `live` from the ledger.
WITH arrived AS (
    SELECT
        point.*,
        {filled} AS filled,
        {hash} AS content,
        live.origin <> 'mlflow'
            AND NOT bool_or(live.origin = 'mlflow') OVER (PARTITION BY point.day, {key}, {mlflow_key}) AS corrects
    FROM intake.intake_{stream} AS point
    JOIN live USING (unit_hash)
    WHERE day BETWEEN $first AND $last AND quarantine_reason IS NULL
)
SELECT {columns}
FROM arrived
WINDOW slot AS ( -- each value's rows side by side, unless they correct
    PARTITION BY day, {key}
    ORDER BY corrects DESC, CASE WHEN NOT corrects THEN ({mlflow_key}) END, {version}filled DESC, content DESC, unit_hash, line
)
QUALIFY row_number() OVER slot = 1
    OR NOT first_value(corrects) OVER slot AND lag(({mlflow_key})) OVER slot IS DISTINCT FROM ({mlflow_key})
