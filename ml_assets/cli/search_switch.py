"""What `ml-assets search-switch` prints."""

import sys
from collections.abc import Mapping
from typing import Any

from ml_assets.settings import Settings
from ml_assets.stack import Stack


def search_switch(
    settings: Settings, embedder: str | None, changes: Mapping[str, Any], force: bool, as_json: bool
) -> bool:
    """Switch, and print what became of it; whether what was asked for is served now."""
    search = Stack(settings).search
    found = search.switch(embedder, force, lambda told: print(told, file=sys.stderr), **changes)
    if as_json:
        import orjson

        print(orjson.dumps(found.as_json()).decode())
    else:
        print(found.sentence)
    return found.moved or found.decision is None
