-- Results of checks in runs that are to go, but for the newest result of each check. Of a check that was planned and never
-- made nothing is kept, nor of days before the first partition.
DELETE FROM asset_check_executions
WHERE run_id IN :runs
    AND id NOT IN (
        SELECT max(id)
        FROM asset_check_executions
        WHERE execution_status <> 'PLANNED'
            AND NOT (coalesce("partition", '') LIKE '____-__-__' AND coalesce("partition", '') < :first)
        GROUP BY asset_key, check_name, "partition"
    )
