"""`ml-assets doctor`: the findings as a table, and below it what to do, unbroken, so that it can be copied."""

import json
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.lib.words import counted
from ml_assets.maintenance.doctor import Finding, examine
from ml_assets.settings import Settings

STATE_STYLE = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(settings: Settings, as_json: bool) -> bool:
    """Print what is found; whether none of it is an error."""
    found = [*examine(settings), *alert_urls(settings)]
    if as_json:
        print(json.dumps({"findings": [vars(each) for each in found]}))
    else:
        _print(found)
    return not any(each.state == "error" for each in found)


def alert_urls(settings: Settings) -> Iterator[Finding]:
    """Whether somebody can be told of alerts; nobody is called."""
    if not (urls := settings.alert_url_list):
        return
    from ml_assets.operations.alert_messages import check_urls

    wrong = check_urls(urls)
    for told in wrong:
        yield Finding("alerts", "error", told, "Correct it: nobody is told there of any alert.")
    if not wrong:
        yield Finding("alerts", "ok", f"{counted(len(urls), 'URL')} that apprise knows")


def _print(found: list[Finding]) -> None:
    console = Console()
    table = Table("", "what", "how it is", title="Doctor")
    for each in found:
        table.add_row(
            Text(each.state, STATE_STYLE[each.state]), each.subject, Text(each.detail, overflow="fold")
        )
    console.print(table)
    for remedy in dict.fromkeys(each.remedy for each in found if each.remedy):
        subjects = dict.fromkeys(each.subject for each in found if each.remedy == remedy)
        console.print(Text(f"{', '.join(subjects)}: {remedy}"), soft_wrap=True)
    errors, warnings = (sum(each.state == state for each in found) for state in ("error", "warning"))
    console.print(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}.")
