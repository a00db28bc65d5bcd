"""`ml-assets alerts ...`: what is wrong with models, and what people say to it."""

from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any

import typer

from ml_assets.cli.command import Csv, Form, Json, command, form, settings_of_home, told_in_words
from ml_assets.settings import Settings

alerts = typer.Typer(help="What is wrong with models; acknowledge it, or let it be for a time.")

CALM = ("snoozed", "acknowledged", "closed")

AlertId = Annotated[str, typer.Argument(metavar="ID", help="the alert's id, or how it begins")]


def list_alerts(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that are over, acknowledged or let be.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="of this model alone")] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """List the alerts that are open, those that matter first."""
    if context.invoked_subcommand is None:
        show(settings_of_home(("postgres",)), model, everything, form(as_json, as_csv))


alerts.callback(invoke_without_command=True)(told_in_words(list_alerts))


@partial(command, group=alerts)
def acknowledge(
    alert_id: AlertId,
    note: Annotated[str, typer.Option(help="what is known of it")] = "",
    as_json: Json = False,
) -> None:
    """Say that you know of an alert: it is not sent any more, and the check does not fail for it."""
    from ml_assets.stack import Stack

    _say(Stack(settings_of_home(("postgres",))).performance.acknowledge(alert_id, note), as_json)


@partial(command, group=alerts)
def snooze(
    alert_id: AlertId,
    until: Annotated[str, typer.Argument(help="how long, such as 3d or 12h, or until when, UTC")],
    as_json: Json = False,
) -> None:
    """Let an alert be for a time; it comes back if it still goes on then."""
    from ml_assets.stack import Stack

    _say(Stack(settings_of_home(("postgres",))).performance.snooze(alert_id, until), as_json)


def show(settings: Settings, model: str | None, everything: bool, form: Form) -> None:
    """Print alerts."""
    from ml_assets.cli.data import print_table
    from ml_assets.stack import Stack

    performance = Stack(settings).performance
    found = performance.alerts(model, None if everything else "open")
    if form != "table":
        print_table(found, form)
        return
    others = [] if everything else performance.alerts(model, CALM)["state"].to_pylist()
    if model and not found.num_rows and not others:
        known = performance.alerts(None, None)["model_name"].to_pylist()
        near = get_close_matches(model, dict.fromkeys(known), 1)
        print(f"There never was an alert of {model}{f': do you mean {near[0]}?' if near else '.'}")
        return
    _print(found.to_pylist(), everything)
    if others:
        counts = [f"{others.count(state):,} {state}" for state in dict.fromkeys(others)]
        print(f"{', '.join(counts)}: --all shows them.")


def _print(rows: list[dict[str, Any]], everything: bool) -> None:
    """Each alert as a line, with what is to be said of it below."""
    from textwrap import fill

    from rich.console import Console
    from rich.text import Text

    from ml_assets.lib.alerts import headline

    if not rows:
        print("There never was an alert." if everything else "No alert is open.")
        return
    console = Console()
    indent = " " * (len(rows[0]["alert_id"]) + 2)
    colours = {"error": "red", "warn": "yellow"}
    for row in rows:
        state = row["severity"] if row["state"] == "open" else row["state"]
        line = Text.assemble(row["alert_id"], "  ", (state, colours.get(state, "dim")), f"  {headline(row)}")
        console.print(line, soft_wrap=True)
        text = " ".join([row["description"], *_said(row)])
        console.print(
            Text(fill(text, console.width, initial_indent=indent, subsequent_indent=indent)), soft_wrap=True
        )


def _said(row: dict[str, Any]) -> list[str]:
    """What became of an alert, in sentences."""
    said = []
    if row["state"] == "closed":
        over = "Withdrawn, as later data show nothing," if row["withdrawn"] else "Over"
        said.append(f"{over} since {row['closed_at']:%Y-%m-%d %H:%M}.")
    if row["state"] == "snoozed":
        said.append(f"Let be until {row['snoozed_until']:%Y-%m-%d %H:%M}.")
    if row["acknowledged_note"]:
        said.append(f"Note: {row['acknowledged_note']}")
    return said


def _say(alert: dict[str, Any], as_json: bool) -> None:
    import orjson

    if as_json:
        print(orjson.dumps([alert]).decode())
        return
    from ml_assets.lib.alerts import headline

    until = f" until {alert['snoozed_until']:%Y-%m-%d %H:%M} UTC" if alert["state"] == "snoozed" else ""
    print(f"{alert['alert_id']} is {alert['state']}{until}: {headline(alert)}.")
