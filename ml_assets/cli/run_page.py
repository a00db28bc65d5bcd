"""What `ml-assets runs show` prints."""

from typing import Any

from ml_assets.settings import Settings
from ml_assets.stack import Stack

_NESTED = ("metrics", "parameters", "tags")


def show(settings: Settings, run_id: str, as_json: bool) -> None:
    """Print one run."""
    run = Stack(settings).experiments.get(run_id)
    if as_json:
        import orjson

        print(orjson.dumps([run], default=str).decode())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, title=Text(f"Run {run_id}"))
    for name, value in run.items():
        if name not in _NESTED and value is not None:
            table.add_row(name, Text(str(value)))
    for name in _NESTED:
        for key, value in sorted(_mapping(run[name]).items()):
            table.add_row(name, Text(f"{key} = {value}"))
    Console().print(table)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
