"""What the parts of the page are written with: tables, and sentences in place of what is not known."""

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from html import escape

from ml_assets.lib.html_page import LONGEST_TEXT, text

_NUMBER = re.compile(r"[–+>-]?\d|–$")  # noqa: RUF001
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def never_made(asset: str, what: str) -> str:
    """The sentence in place of a table that was never made."""
    return (
        f'<p class="nothing">{escape(what)} is not known: the table <code>{escape(asset)}</code> was never '
        "materialized. <code>ml-assets refresh</code> makes it.</p>"
    )


def sentence(told: str) -> str:
    """A sentence in place of what there is nothing to show of."""
    return f'<p class="nothing">{escape(told)}</p>'


def table(name: str, label: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; what is None is shown as a dash, and numbers stand on the right."""
    right = [i > 0 and _is_numeric(row[i] for row in rows) for i in range(len(heads))]
    top = "".join(
        f'<th scope="col"{" class=n" if n else ""}>{text(head)}</th>'
        for head, n in zip(heads, right, strict=True)
    )

    def cell(value: object, place: int) -> str:
        if value is None or value == "–":  # noqa: RUF001
            return f'<td class="{"n " if right[place] else ""}none">&ndash;</td>'
        told = f"{value:,}" if isinstance(value, int) else str(value)
        if place == 0:
            return f'<th scope="row" title="{text(told)}">{text(told)}</th>'
        if " " in told and len(told) > LONGEST_TEXT:  # sentences, which are read
            return f'<td class="told">{text(told, 10 * LONGEST_TEXT)}</td>'
        return f'<td{" class=n" if right[place] else ""} title="{text(told)}">{text(told)}</td>'

    body = "".join(f"<tr>{''.join(cell(value, i) for i, value in enumerate(row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table id="{name}">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _is_numeric(values: Iterable[object]) -> bool:
    known = [str(value) for value in values if value is not None]
    return bool(known) and all(_NUMBER.match(value) and not _DATE.match(value) for value in known)


def moment(value: datetime | date | None) -> str | None:
    """A time to the minute; a day where it is the start of one."""
    if value is None:
        return None
    if not isinstance(value, datetime) or not (value.hour or value.minute):
        return f"{value:%Y-%m-%d}"
    return f"{value:%Y-%m-%d %H:%M}"
