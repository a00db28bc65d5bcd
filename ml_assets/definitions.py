"""What Dagster loads: the graph on the stores that the environment names."""

import dagster as dg

from ml_assets.build import build_defs
from ml_assets.settings import Settings


@dg.definitions
def defs() -> dg.Definitions:
    """The whole graph."""
    settings = Settings()
    settings.publish()
    return build_defs(settings)
