"""What `ml-assets features verify` prints."""

from collections.abc import Mapping
from typing import Any

import typer

from ml_assets.lib.leaks import Verdict, example_text
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def verify(settings: Settings, frame: str, asked: Mapping[str, Any], as_json: bool) -> None:
    """Print the verdict on a frame; the exit status is 1 if it leaks."""
    verdict = Stack(settings).features.verify(frame, **asked)
    if as_json:
        import orjson

        print(orjson.dumps([verdict.as_json()]).decode())
    else:
        _print(verdict)
    if not verdict.ok:
        raise typer.Exit(1)


def _print(verdict: Verdict) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ml_assets.lib.leaks import KINDS

    table = Table("leak", "examined", "found", show_lines=True)
    for kind, meaning in KINDS.items():
        found = [finding for finding in verdict.findings if finding.kind == kind]
        examined = verdict.examined.get(kind)
        told = "\n".join(f"{each.where}: {each.count:,} rows" for each in found)
        table.add_row(*map(Text, (meaning, examined or "no", told or ("none" if examined else "-"))))
    console = Console()
    console.print(table)
    for finding in verdict.findings:
        console.print(Text(f"{finding.told} {finding.way_out}"))
        for example in finding.examples:
            console.print(Text(f"  {example_text(example)}"))
    for note in verdict.notes:
        console.print(Text(note))
    console.print(Text(verdict.headline))
