-- One run as numbers: outcome, learning curve, and how its model stood before the run started.
-- $start and $end bound the days that are built: [$start, $end) on created_at, UTC.
WITH built AS (
    SELECT * FROM raw.raw_runs WHERE created_at >= $start AND created_at < $end
),
-- The learning curves of these runs. A late point counts whatever its own day.
curves AS (
    SELECT
        run_id,
        count(DISTINCT key) AS metric_count,
        count(*) AS point_count,
        max(step) AS last_step,
        arg_max(value, (step, timestamp, value)) FILTER (WHERE key = 'accuracy') AS last_accuracy,
        arg_max(value, (step, timestamp, value)) FILTER (WHERE key = 'f1_score') AS last_f1_score,
        arg_max(value, (step, timestamp, value)) FILTER (WHERE key = 'loss' AND isfinite(value)) AS last_loss,
        min(value) FILTER (WHERE key = 'loss' AND isfinite(value)) AS best_loss,
        -- Ordered, so that the sums run the same way each time and the last bits agree.
        regr_slope(value, step ORDER BY step, timestamp, value)
            FILTER (WHERE key = 'loss' AND isfinite(value)) AS loss_slope
    FROM raw.raw_metrics
    WHERE run_id IN (SELECT run_id FROM built)
    GROUP BY run_id
),
-- Completed runs of the same models, with what they reached.
completed AS (
    SELECT
        run.run_id,
        run.model_name,
        run.completed_at,
        coalesce(TRY_CAST(run.metrics ->> '$.accuracy' AS DOUBLE), logged.accuracy) AS accuracy
    FROM raw.raw_runs AS run
    -- As logged until it ended: later points were not known to the runs that look back on it.
    LEFT JOIN (
        SELECT point.run_id, arg_max(point.value, (point.step, point.timestamp, point.value)) AS accuracy
        FROM raw.raw_metrics AS point
        JOIN raw.raw_runs AS ended ON point.run_id = ended.run_id AND point.timestamp <= ended.completed_at
        WHERE point.key = 'accuracy'
        GROUP BY point.run_id
    ) AS logged ON run.run_id = logged.run_id
    WHERE run.status = 'completed' AND run.completed_at < $end
        AND run.model_name IN (SELECT model_name FROM built)
),
-- What each of them had reached when it ended, and the best until then.
outcomes AS (
    SELECT
        model_name,
        completed_at,
        accuracy AS last_accuracy,
        count(*) OVER so_far AS runs,
        -- NaN sorts above every number: one diverged run would be the best ever after.
        max(accuracy) FILTER (WHERE isfinite(accuracy)) OVER so_far AS best_accuracy
    FROM completed
    WINDOW so_far AS (PARTITION BY model_name ORDER BY completed_at, run_id ROWS UNBOUNDED PRECEDING)
    -- One row an instant, so that the join below has no ties to choose from.
    QUALIFY run_id = max(run_id) OVER (PARTITION BY model_name, completed_at)
),
scored AS (
    SELECT
        built.*,
        curves.* EXCLUDE (run_id),
        coalesce(TRY_CAST(built.metrics ->> '$.accuracy' AS DOUBLE), curves.last_accuracy) AS accuracy,
        coalesce(TRY_CAST(built.metrics ->> '$.f1_score' AS DOUBLE), curves.last_f1_score) AS f1_score,
        coalesce(TRY_CAST(built.metrics ->> '$.loss' AS DOUBLE), curves.last_loss) AS loss
    FROM built LEFT JOIN curves USING (run_id)
)
SELECT
    run.run_id,
    run.parent_run_id,
    run.experiment,
    run.name,
    run.model_name,
    run.model_version,
    run.model_type,
    run.dataset,
    run.status,
    run.created_at,
    run.completed_at,
    epoch_us(run.completed_at - run.created_at) / 1e6 AS duration_s,
    coalesce(len(json_keys(run.parameters)), 0)::BIGINT AS parameter_count,
    coalesce(run.metric_count, 0)::BIGINT AS metric_count,
    coalesce(run.point_count, 0)::BIGINT AS point_count,
    run.last_step,
    run.accuracy,
    run.f1_score,
    run.loss,
    run.best_loss,
    run.loss_slope,
    coalesce(before.runs, 0)::BIGINT AS previous_runs,
    before.last_accuracy AS previous_accuracy,
    before.best_accuracy AS previous_best_accuracy,
    run.accuracy - before.last_accuracy AS accuracy_change,
    run.parameters,
    run.notes,
    run.error
FROM scored AS run
-- Point in time: only what had ended strictly before this run started.
ASOF LEFT JOIN outcomes AS before
    ON run.model_name = before.model_name AND run.created_at > before.completed_at
