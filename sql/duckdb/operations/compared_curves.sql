-- Learning curves of the runs $runs, in which the more important ones come first: of $keys metrics, $first and those
-- that most runs have a curve of, at most $curves, all those of one run before those of the next. Of a curve at most
-- $stretches stretches of steps, each with its lowest and its highest value and one that is not finite, so that neither
-- spikes nor gaps are lost.
WITH wanted AS (
    SELECT unnest($runs::VARCHAR[]) AS run_id, generate_subscripts($runs::VARCHAR[], 1) AS place
),
points AS (
    SELECT wanted.place, metric.run_id, metric.key, metric.step, metric.value
    FROM raw.raw_metrics AS metric JOIN wanted USING (run_id)
    WHERE metric.value IS NOT NULL
),
spans AS (
    SELECT place, run_id, key, min(step) AS first_step, max(step) AS last_step
    FROM points
    GROUP BY ALL
    HAVING first_step < last_step
),
keys AS (
    SELECT key, row_number() OVER (ORDER BY if(key = $first, 0, 1), count(*) DESC, key) AS rank FROM spans GROUP BY key
),
chosen AS (
    SELECT spans.*, keys.rank, (SELECT count(*) FROM spans) AS known
    FROM spans JOIN keys USING (key)
    WHERE keys.rank <= $keys
    QUALIFY row_number() OVER (ORDER BY spans.place, keys.rank) <= $curves
),
stretches AS (
    SELECT
        chosen.place,
        chosen.rank,
        chosen.known,
        run_id,
        key,
        floor((step::DOUBLE - first_step) * $stretches / (last_step::DOUBLE - first_step + 1)) AS stretch,
        min_by({'x': step, 'y': value}, value) FILTER (isfinite(value)) AS lowest,
        max_by({'x': step, 'y': value}, value) FILTER (isfinite(value)) AS highest,
        min(step) FILTER (NOT isfinite(value)) AS lost
    FROM points JOIN chosen USING (run_id, key)
    GROUP BY ALL
),
kept AS (
    SELECT * EXCLUDE (lowest, highest, lost), lowest.x AS x, lowest.y AS value FROM stretches WHERE lowest IS NOT NULL
    UNION ALL
    SELECT * EXCLUDE (lowest, highest, lost), highest.x, highest.y FROM stretches WHERE highest.y > lowest.y
    UNION ALL
    SELECT * EXCLUDE (lowest, highest, lost), lost, NULL FROM stretches WHERE lost IS NOT NULL
)
SELECT run_id, key, x, value, known
FROM kept
ORDER BY rank, place, x, value
