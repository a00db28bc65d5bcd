"""Step 1: pins of the lake's versions. They lay in a table of the lake, and are rows of its catalog."""

from ml_assets.settings import Settings


def move_pins(settings: Settings) -> None:
    """Move what releases before have pinned to where it is looked for.

    Raises:
        StoreUnavailable: the lake's catalog does not answer.
    """
    data = settings.home / "services" / "postgres" / "data"
    if settings.mode("duckdb") == "embedded" and not data.is_dir():
        return  # nothing was ever written, and no server is started to learn that
    from ml_assets.resources import store_resources
    from ml_assets.stores.duckdb.pins import move_former

    move_former(store_resources(settings)["lake"])
