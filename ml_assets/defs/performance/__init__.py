"""The room of performance: events and rollups in ClickHouse, and what is seen in them."""

import dagster as dg

from ml_assets.contracts import Tables
from ml_assets.defs.performance import alerts, drift, estimates, events, regressions, rollups, trends
from ml_assets.settings import Settings


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """All parts of the room."""
    parts = (events, rollups, trends, regressions, drift, estimates, alerts)
    return dg.Definitions.merge(*(part.build(settings, tables) for part in parts))
