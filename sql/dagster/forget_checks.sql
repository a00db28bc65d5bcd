-- Results of checks in runs that are to go, but for the newest of each check.
DELETE FROM asset_check_executions
WHERE run_id IN :runs
    AND id NOT IN (
        SELECT max(id) FROM asset_check_executions GROUP BY asset_key, check_name, "partition"
    )
