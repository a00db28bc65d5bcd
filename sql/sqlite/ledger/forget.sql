-- Forget one partition, also by the name without zeros in front that partitions before the year 1000 once had.
DELETE FROM ml_assets_writes
WHERE table_name = :table_name AND partition IN (:partition, ltrim(:partition, '0'))
