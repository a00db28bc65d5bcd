"""What each store, and each part of a home beside the stores, takes on disk."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_assets import services
from ml_assets.lib.faults import one_sentence
from ml_assets.maintenance.home_parts import home_parts
from ml_assets.resources import store_resources
from ml_assets.resources.base import BUSY_TIMEOUT_S
from ml_assets.settings import Settings
from ml_assets.stores.files import folder_bytes
from ml_assets.stores.registry import stores


def disk_use(settings: Settings, status: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, int]:
    """Bytes by part; of Redis in memory. Nothing is started or made, and what cannot be asked is left out.

    Args:
        settings: which home.
        status: what `stores_status` has just told.
        say: is given a sentence, without passwords, for each part that is left out although it answered before.
    """
    resources = store_resources(settings.model_copy(update={"lock_timeout_s": BUSY_TIMEOUT_S}))
    found: dict[str, int] = {}
    with services.only_running():
        # What was never written has no tables, and asking for its size would make it.
        written = [each for each in stores(resources) if status.get(each.name, {}).get("tables")]
        parts = [part for store in written for part in store.maintained()]
        for part in [*parts, *(home_parts(settings, resources) if settings.home.exists() else [])]:
            try:
                size = part.size()
            except Exception as fault:  # noqa: BLE001 - as a health check: the other parts are told all the same
                say(settings.masked(f"The bytes of {part.name} are left out: {one_sentence(fault)}"))
                continue
            if size is not None:
                found[part.name] = size
    for name in ("artifacts", "landing"):
        if (folder := settings.home / name).exists():
            found[name] = folder_bytes(folder)
    return found
