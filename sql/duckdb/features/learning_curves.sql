-- One point of a run's learning curve: the value of a metric at a step, the best until then, and how far the run was. Of
-- a step that was logged again, as by a run that was resumed, the newest value stands. All points of a run stand on the
-- day on which it started, whatever their own days, and `known_at` is when the last of them was logged: until then a
-- step may be logged again, and nobody knows which step is the last.
-- $start and $end bound the days that are built: [$start, $end) on created_at, UTC. `metric_rules` says of each key
-- which way is better.
-- entity: run_id, key
-- event_time: logged_at
-- known_time: known_at
-- partition: created_at
-- key: run_id, key, step
-- owner: team:ml-assets
-- tags: training, quality
WITH built AS (
    SELECT run_id, created_at, dataset, experiment FROM raw.raw_runs WHERE created_at >= $start AND created_at < $end
),
points AS (
    SELECT
        point.run_id,
        point.key,
        point.step,
        point.timestamp,
        point.value,
        built.created_at,
        greatest(built.created_at, max(point.timestamp) OVER (PARTITION BY point.run_id)) AS known_at,
        min(point.step) OVER (PARTITION BY point.run_id)::DOUBLE AS first_step,
        max(point.step) OVER (PARTITION BY point.run_id)::DOUBLE AS last_step
    FROM raw.raw_metrics AS point
    JOIN built ON point.run_id = built.run_id
    WHERE point.value IS NOT NULL
    WINDOW history AS (PARTITION BY point.run_id, point.key ORDER BY point.step, point.timestamp, point.value)
    QUALIFY lead(point.step) OVER history IS DISTINCT FROM point.step
),
-- Which way is better, by the first rule that holds for the run.
directions AS (
    SELECT
        curve.run_id,
        curve.key,
        arg_min({'name': rule.name, 'rises': rule.higher_is_better}, rule.rank) AS rule
    FROM (SELECT DISTINCT run_id, key FROM points) AS curve
    JOIN built ON curve.run_id = built.run_id
    JOIN metric_rules AS rule
        ON curve.key = rule.key
        AND (rule.dataset IS NULL OR rule.dataset = built.dataset)
        AND (rule.experiment IS NULL OR rule.experiment = built.experiment)
    GROUP BY curve.run_id, curve.key
)
SELECT
    point.run_id,  -- run that logged the value
    point.key,  -- name of the metric, as it was logged
    direction.rule.name AS metric,  -- its canonical name; null if it measures no quality (docs/metrics.md)
    point.step,  -- training step
    coalesce((point.step - point.first_step) / nullif(point.last_step - point.first_step, 0), 1) AS step_share,  -- how far the run was: 0 at its first step, 1 at its last or only one
    point.value,  -- the value; NaN and infinities as they came
    CASE direction.rule.rises
        WHEN TRUE THEN max(point.value) FILTER (isfinite(point.value)) OVER so_far
        WHEN FALSE THEN min(point.value) FILTER (isfinite(point.value)) OVER so_far
    END AS best_value,  -- best finite value up to this step; null if the metric measures no quality
    list_avg(
        list(point.value) FILTER (isfinite(point.value)) OVER (so_far ROWS BETWEEN 4 PRECEDING AND CURRENT ROW)
    ) AS smoothed_value,  -- mean of the finite values among the last five points
    direction.rule.rises AS higher_is_better,  -- whether a larger value is better
    point.timestamp AS logged_at,  -- when the value was logged, UTC
    point.created_at,  -- start of the run, UTC; its day is the partition
    point.known_at  -- when the run logged its last point, UTC
FROM points AS point
LEFT JOIN directions AS direction ON point.run_id = direction.run_id AND point.key = direction.key
WINDOW so_far AS (PARTITION BY point.run_id, point.key ORDER BY point.step)
