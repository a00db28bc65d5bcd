"""`ml-assets features list`: what it prints."""

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def list_views(settings: Settings, form: Form) -> None:
    """Print the feature views: all that is known of them, or for people what fits a screen."""
    views = Stack(settings).features.views()
    if form != "table":
        print_table(views, form)
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column("view", no_wrap=True), "of", "at", "ttl", "online", "what")
    for view in views.to_pylist():
        online = "yes" if view["online"] else ""
        what = view["description"].partition(". ")[0].partition(":")[0].removesuffix(".")
        cells = (view["view"], ", ".join(view["entity"]), view["event_time"], view["ttl"], online, what)
        table.add_row(*(Text(cell or "") for cell in cells))
    Console().print(table)
