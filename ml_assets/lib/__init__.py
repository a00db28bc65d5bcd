"""Pure functions: no dagster, no store, no environment."""
