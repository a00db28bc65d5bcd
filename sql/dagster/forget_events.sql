-- Events of runs that are to go, but for the newest materialization and observation of each partition of each asset,
-- by which Dagster knows that it is there. Of days before the first partition nothing is kept.
DELETE FROM event_logs
WHERE run_id IN :runs
    AND id NOT IN (
        SELECT max(id)
        FROM event_logs
        WHERE dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION')
            AND NOT (coalesce("partition", '') LIKE '____-__-__' AND coalesce("partition", '') < :first)
        GROUP BY asset_key, "partition", dagster_event_type
    )
