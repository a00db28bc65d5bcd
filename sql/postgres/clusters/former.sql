-- The clusters as they stand, with the map.
SELECT {id}, cluster, label, title, certainty, x, y, content_hash FROM {table} ORDER BY {id} COLLATE "C"
