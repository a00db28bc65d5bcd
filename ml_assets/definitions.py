"""What Dagster loads: the graph on the stores that the environment names."""

import dagster as dg

from ml_assets.build import build_defs
from ml_assets.settings import Settings


@dg.definitions
def defs() -> dg.Definitions:
    """The whole graph.

    Raises:
        Refusal: the home is of a newer release, or of a former one that still runs; the UI shows the sentence.
    """
    from ml_assets.maintenance.upgrade import open_home

    settings = Settings()
    settings.publish()
    open_home(settings)
    return build_defs(settings)
