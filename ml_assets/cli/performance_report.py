"""What `ml-assets report` does."""

import json
import sys
import webbrowser
from pathlib import Path

from ml_assets.settings import Settings
from ml_assets.stack import Stack


def report(settings: Settings, model_name: str, output: Path | None, show: bool, as_json: bool) -> None:
    """Write a model's page and tell where it is; open it if asked."""
    path = Stack(settings).performance.report(model_name, output).resolve()
    print(json.dumps({"model_name": model_name, "path": str(path)}) if as_json else path)
    if show and not webbrowser.open(path.as_uri()):
        print(f"No browser could be opened: open {path.as_uri()} in one.", file=sys.stderr)
