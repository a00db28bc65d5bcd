"""ml-assets: the whole ML database stack as one Dagster asset graph."""
