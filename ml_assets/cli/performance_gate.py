"""`ml-assets gate`: what it prints."""

from ml_assets.lib.promotion import Decision
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def gate(settings: Settings, model: str, version: str | None, record: bool, as_json: bool) -> bool:
    """Print what the gate says of a version; whether it may be promoted."""
    decision = Stack(settings).performance.gate(model, version, record)
    if as_json:
        import orjson

        print(orjson.dumps(decision.as_json(), default=str).decode())
    else:
        _print(decision)
    return decision.promotable


def _print(decision: Decision) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column("check", no_wrap=True), Column("verdict", no_wrap=True), "what was found")
    for check in decision.checks:
        verdict = "passed" if check.passed else "refused" if check.judged else "not judged"
        table.add_row(*map(Text, (check.name, verdict, check.sentence)))
    console = Console()
    console.print(table)
    evidence = decision.evidence
    read = [f"{asset} ({state['rows']:,} rows)" for asset, state in evidence["tables"].items() if state]
    console.print(Text(f"Read at version {evidence['lake_version']} of the lake: {', '.join(read)}."))
    for note in decision.notes:
        console.print(Text(note))
    if decision.moved:
        console.print(
            Text(
                f"The alias {decision.alias} moved from {decision.alias_version or 'none'} to {decision.version}."
            )
        )
    if decision.recorded is not None:
        console.print(Text(f"Recorded as decision {decision.recorded} in ml_promotions."))
    verdict = "may be promoted" if decision.promotable else "is refused"
    console.print(Text(f"Version {decision.version} of {decision.model_name} {verdict}."))
