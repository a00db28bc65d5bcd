"""`ml-assets slow`: what it prints."""

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def slow(settings: Settings, model: str | None, window: str, limit: int, form: Form) -> None:
    """Print the slowest requests: all that is known of them, or for people what fits a screen."""
    found = Stack(settings).performance.slow_requests(model, window, limit)
    if form != "table":
        print_table(found, form)
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # What has to be read whole: of 80 characters the rest is left to the names.
    # All has to be read whole, in 80 characters. The event is on as many lines as it needs: one asks for it next.
    right = [Column(name, justify="right", no_wrap=True) for name in ("ms", "x median", "percentile")]
    table = Table(Column("time, UTC", no_wrap=True), Column("model, version; event", overflow="fold"), *right)
    for row in found.to_pylist():
        times = row["times_median"]
        cells = (
            f"{row['timestamp']:%Y-%m-%d %H:%M:%S}",
            f"{row['model_name']} {row['model_version'] or ''}".rstrip() + f"\n{row['event_id']}",
            f"{row['inference_time_ms']:,.3g}",
            "" if times is None else f"{times:,.3g}",
            f"{row['percentile']:.5g}",
        )
        table.add_row(*map(Text, cells))
    console = Console()
    if not found.num_rows:
        of = f" of {model}" if model else ""
        console.print(f"No request{of} is known of the last {window}: give a longer --window.")
        return
    console.print(table)
    console.print("--json tells the run, dataset, batch and memory of each.", highlight=False)
