"""Raw: what a team has, in files and in MLflow, becomes typed and deduplicated tables by day.

What belongs here: the assets of intake and raw, their checks and sensors. How rows are read and judged is in
ml_assets/intake.
"""

import dagster as dg

from ml_assets.contracts import STREAMS, Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.raw.assets import external_assets, intake_asset, raw_asset
from ml_assets.defs.raw.checks import intake_accounts, nothing_quarantined, raw_accounts
from ml_assets.defs.raw.sensors import landing_sensor, mlflow_sensor, touched_days_sensor
from ml_assets.settings import Settings


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """External sources, intake and raw of all streams, with checks and sensors."""
    return dg.Definitions(
        assets=[
            *external_assets(settings),
            *(intake_asset(settings, tables, stream) for stream in STREAMS.values()),
            *(raw_asset(settings, tables, stream) for stream in STREAMS.values()),
        ],
        asset_checks=[
            *(table_checks(tables, f"duckdb/raw_{name}") for name in STREAMS),
            *(nothing_quarantined(name) for name in STREAMS),
            *(intake_accounts(name) for name in STREAMS),
            *(raw_accounts(name) for name in STREAMS),
        ],
        sensors=[landing_sensor(settings), mlflow_sensor(), touched_days_sensor()],
    )
