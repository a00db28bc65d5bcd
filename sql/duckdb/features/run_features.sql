-- One run as numbers: outcome, learning curve, and how its model stood before the run started.
-- The `previous_` columns are a point-in-time join: they use only runs that had ended before this one started, so a
-- model that learns from this table cannot peek into the future.
-- $start and $end bound the days that are built: [$start, $end) on created_at, UTC. `metric_rules` says of each key
-- under which name it is compared, and at which rank it judges the runs of which dataset and experiment.
-- `known_at` is the end of the run, or its last point if that was logged later: such a point counts, too.
-- entity: run_id
-- event_time: created_at
-- known_time: known_at
-- key: run_id
-- unique: yes
-- tags: runs, quality
WITH built AS (
    SELECT * FROM raw.raw_runs WHERE created_at >= $start AND created_at < $end
),
-- The runs whose metrics are looked at: those that are built, with all that was logged, and the completed runs of
-- the same models, as they stood when they ended: later points were not known to the runs that look back on them.
looked AS (
    SELECT FALSE AS past, run_id, model_name, dataset, experiment, metrics, completed_at FROM built
    UNION ALL
    SELECT TRUE, run_id, model_name, dataset, experiment, metrics, completed_at
    FROM raw.raw_runs
    WHERE status = 'completed' AND completed_at < $end AND model_name IN (SELECT model_name FROM built)
),
-- Last values by metric as the runs themselves reported them.
reported AS (
    SELECT past, run_id, entry.key AS key, TRY_CAST(entry.value ->> '$' AS DOUBLE) AS value
    FROM (
        SELECT past, run_id, unnest(map_entries(metrics::MAP(VARCHAR, JSON))) AS entry
        FROM looked
        WHERE json_type(metrics) = 'OBJECT'
    )
),
-- The learning curves of the runs that are built. A late point counts whatever its own day.
curves AS (
    SELECT
        point.run_id,
        point.key,
        count(*) AS points,
        max(point.step) AS last_step,
        max(point.timestamp) AS last_logged,
        arg_max(point.value, (point.step, point.timestamp, point.value)) AS last_value,
        arg_max(point.value, (point.step, point.timestamp, point.value)) FILTER (isfinite(point.value)) AS last_finite,
        min(point.value) FILTER (isfinite(point.value)) AS lowest,
        -- Ordered, so that the sums run the same way each time and the last bits agree.
        regr_slope(point.value, point.step ORDER BY point.step, point.timestamp, point.value)
            FILTER (losses.key IS NOT NULL AND isfinite(point.value)) AS slope
    FROM raw.raw_metrics AS point
    LEFT JOIN (SELECT DISTINCT key FROM metric_rules WHERE name = 'loss') AS losses ON point.key = losses.key
    WHERE point.run_id IN (SELECT run_id FROM built)
    GROUP BY point.run_id, point.key
),
logged AS (
    SELECT FALSE AS past, run_id, key, last_value AS value FROM curves
    UNION ALL
    SELECT TRUE, point.run_id, point.key, arg_max(point.value, (point.step, point.timestamp, point.value))
    FROM raw.raw_metrics AS point
    JOIN looked ON looked.past AND point.run_id = looked.run_id AND point.timestamp <= looked.completed_at
    GROUP BY point.run_id, point.key
),
-- Of each of these runs: the metric that judges it, and those that a column is named after, under that very name or
-- else as the first of its synonyms.
judged AS (
    SELECT
        finals.past,
        finals.run_id,
        arg_min({'name': rule.name, 'key': finals.key, 'value': finals.value, 'rises': rule.higher_is_better}, rule.rank)
            AS best,
        arg_min(finals.value, (rule.key <> rule.name, rule.rank)) FILTER (rule.name = 'accuracy') AS accuracy,
        arg_min(finals.value, (rule.key <> rule.name, rule.rank)) FILTER (rule.name = 'f1_score') AS f1_score,
        arg_min({'key': finals.key, 'reported': finals.reported}, (rule.key <> rule.name, rule.rank))
            FILTER (rule.name = 'loss') AS loss
    FROM (
        SELECT
            past,
            run_id,
            key,
            reported.value AS reported,
            coalesce(reported.value, logged.value) AS value
        FROM reported FULL JOIN logged USING (past, run_id, key)
    ) AS finals
    JOIN looked ON finals.past = looked.past AND finals.run_id = looked.run_id
    JOIN metric_rules AS rule
        ON finals.key = rule.key
        AND (rule.dataset IS NULL OR rule.dataset = looked.dataset)
        AND (rule.experiment IS NULL OR rule.experiment = looked.experiment)
    WHERE finals.value IS NOT NULL
    GROUP BY finals.past, finals.run_id
),
-- The completed runs of the same models, with what they had reached when they ended.
completed AS (
    SELECT run.run_id, run.model_name, run.completed_at, judged.accuracy, judged.best
    FROM looked AS run LEFT JOIN judged ON judged.past AND run.run_id = judged.run_id
    WHERE run.past
),
-- What each of them had reached, and the best until then.
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
-- The same by the metric that judged them.
judgements AS (
    SELECT
        model_name,
        best.name AS metric,
        completed_at,
        best.value AS last_value,
        if(
            best.rises,
            max(best.value) FILTER (WHERE isfinite(best.value)) OVER so_far,
            min(best.value) FILTER (WHERE isfinite(best.value)) OVER so_far
        ) AS best_value
    FROM completed
    WHERE best IS NOT NULL
    WINDOW so_far AS (PARTITION BY model_name, best.name ORDER BY completed_at, run_id ROWS UNBOUNDED PRECEDING)
    QUALIFY run_id = max(run_id) OVER (PARTITION BY model_name, best.name, completed_at)
),
histories AS (
    SELECT
        run_id,
        count(key) AS metric_count,
        sum(points)::BIGINT AS point_count,
        max(last_step) AS last_step,
        max(last_logged) AS last_logged
    FROM curves
    GROUP BY run_id
),
-- JSON has no NaN and no infinities: they stand there as strings, as in MLflow.
last_values AS (
    SELECT
        run_id,
        json_group_object(
            key,
            CASE
                WHEN isfinite(last_value) THEN to_json(last_value)
                WHEN isnan(last_value) THEN to_json('NaN')
                ELSE to_json(if(last_value > 0, 'Infinity', '-Infinity'))
            END
        ) AS metrics
    FROM curves
    WHERE last_value IS NOT NULL
    GROUP BY run_id
),
scored AS (
    SELECT
        built.* EXCLUDE (metrics),
        histories.* EXCLUDE (run_id),
        CASE
            WHEN last_values.metrics IS NULL THEN built.metrics
            ELSE json_merge_patch(last_values.metrics, coalesce(built.metrics, '{}'::JSON))
        END AS metrics,
        judged.best.name AS primary_metric,
        judged.best.key AS primary_metric_key,
        judged.best.value AS primary_value,
        judged.best.rises AS primary_higher_is_better,
        judged.accuracy,
        judged.f1_score,
        coalesce(judged.loss.reported, loss.last_finite) AS loss,
        loss.lowest AS best_loss,
        -- Of a single step it comes as NaN.
        if(isfinite(loss.slope), loss.slope, NULL) AS loss_slope
    FROM built
    LEFT JOIN histories ON built.run_id = histories.run_id
    LEFT JOIN last_values ON built.run_id = last_values.run_id
    LEFT JOIN judged ON NOT judged.past AND built.run_id = judged.run_id
    LEFT JOIN curves AS loss ON judged.run_id = loss.run_id AND judged.loss.key = loss.key
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
    if(run.completed_at IS NULL, NULL, greatest(run.completed_at, run.created_at, run.last_logged)) AS known_at,
    epoch_us(run.completed_at - run.created_at) / 1e6 AS duration_s,
    coalesce(len(json_keys(run.parameters)), 0)::BIGINT AS parameter_count,
    coalesce(run.metric_count, 0)::BIGINT AS metric_count,
    coalesce(run.point_count, 0)::BIGINT AS point_count,
    run.last_step,
    run.primary_metric,
    run.primary_metric_key,
    run.primary_value,
    run.primary_higher_is_better,
    run.accuracy,
    run.f1_score,
    run.loss,
    run.best_loss,
    run.loss_slope,
    coalesce(before.runs, 0)::BIGINT AS previous_runs,
    before.completed_at AS previous_completed_at,
    same.last_value AS previous_primary_value,
    same.best_value AS previous_best_primary_value,
    run.primary_value - same.last_value AS primary_change,
    before.last_accuracy AS previous_accuracy,
    before.best_accuracy AS previous_best_accuracy,
    run.accuracy - before.last_accuracy AS accuracy_change,
    run.metrics,
    run.parameters,
    run.notes,
    run.error
FROM scored AS run
-- Point in time: only what had ended strictly before this run started.
ASOF LEFT JOIN outcomes AS before
    ON run.model_name = before.model_name AND run.created_at > before.completed_at
ASOF LEFT JOIN judgements AS same
    ON run.model_name = same.model_name AND run.primary_metric = same.metric AND run.created_at > same.completed_at
