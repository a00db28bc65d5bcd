"""What `ml-assets search-switch` prints."""

import sys

from ml_assets.settings import Settings
from ml_assets.stack import Stack


def search_switch(settings: Settings, embedder: str, force: bool, as_json: bool) -> bool:
    """Switch, and print what became of it; whether the model is served now."""
    found = Stack(settings).search.switch(embedder, force, lambda told: print(told, file=sys.stderr))
    if as_json:
        import orjson

        print(orjson.dumps(found.as_json()).decode())
    else:
        print(found.sentence)
    return found.moved or found.decision is None
