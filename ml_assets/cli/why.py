"""`ml-assets why`: what it prints."""

from ml_assets.lib.why import Explanation
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def why(settings: Settings, model: str, day: str | None, as_json: bool, as_markdown: bool) -> None:
    """Print why a model became worse."""
    found = Stack(settings).why(model, day)
    if as_json:
        import orjson

        print(orjson.dumps(found.as_json(), default=str).decode())
    elif as_markdown:
        print(found.markdown(), end="")
    else:
        _print(found)


def _print(found: Explanation) -> None:
    from textwrap import fill

    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    console.print(Text(found.headline, "bold"))
    if found.summary:
        console.print(Text(f"\n{found.summary.text}"), Text(found.summary.mark, "dim italic"), sep="\n")
    causes = Table("cause", Column("verdict", no_wrap=True), "for it", "against it")
    for cause in found.causes:
        numbers = (", ".join(map(str, each)) or "-" for each in (cause.supports, cause.contradicts))
        causes.add_row(*map(Text, (cause.sentence, cause.verdict, *numbers)))
    if found.causes:
        console.print(causes)
    for number, claim in enumerate(found.claims, 1):
        lead = f"{number:>3}  "
        text = fill(claim.sentence, console.width, initial_indent=lead, subsequent_indent=" " * len(lead))
        tables = ", ".join(dict.fromkeys(row.table for row in claim.rows))
        console.print(Text.assemble(text, (f"\n{' ' * len(lead)}{tables}", "dim")), soft_wrap=True)
    for note in found.notes:
        console.print(Text(f"\n{note}"))
    console.print(Text("\n--json and --markdown have the rows.", "dim"))
