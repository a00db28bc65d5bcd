"""The whole graph as one HTML page that asks nothing of any network: every table and column, and what comes from what.

What belongs here: lineage and facts about tables in, a page out. What does not: asking stores or Dagster's history, and
the files of style and script, which are handed in. Tables and columns stand in the page and are read without the
script; it draws the lines and lights up what belongs to a column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from ml_assets.lib.html_page import framed
from ml_assets.lib.lineage import ColumnRef, Lineage
from ml_assets.lib.lineage_layout import Lane, lanes
from ml_assets.lib.words import counted

OUTSIDE = "outside"
"""Name of the lane of landing folders and MLflow."""


@dataclass(frozen=True)
class ShownColumn:
    """A column as the page tells of it.

    Args:
        name: its name.
        type: logical type; empty if it is not known.
        description: one line; empty if there is none.
    """

    name: str
    type: str = ""
    description: str = ""


@dataclass(frozen=True)
class TableFacts:
    """What is known of a table at the moment.

    Args:
        rows: how many it holds; None if that is not known.
        written: when it was materialized last, UTC; None if it never was.
        failed: names of its checks that did not pass when they ran last.
    """

    rows: int | None = None
    written: datetime | None = None
    failed: Sequence[str] = ()


def lineage_page(
    columns: Mapping[str, Sequence[ShownColumn]],
    lineage: Lineage,
    facts: Mapping[str, TableFacts],
    at: datetime,
    style: str,
    script: str,
    chosen: ColumnRef | None = None,
) -> str:
    """The page.

    Args:
        columns: of every table, by `store/table`; those without origins lie outside of the graph.
        lineage: where they come from.
        facts: of the tables that anything is known of; a table without any has not been asked about.
        at: when the facts were read, UTC.
        style: CSS.
        script: JavaScript that finds its data in the element `data`.
        chosen: the column that is lit at first.
    """
    parents = {asset: sorted(lineage[asset].parents()) if asset in lineage else [] for asset in columns}
    stores = {asset: asset.split("/")[0] if asset in lineage else OUTSIDE for asset in columns}
    placed = lanes(parents, stores)
    numbers = {asset: i for i, asset in enumerate(columns)}
    ids = {
        ColumnRef(asset, column.name): i
        for i, (asset, column) in enumerate((a, c) for a, each in columns.items() for c in each)
    }
    depth = max((lane.first + len(lane.cells) for lane in placed), default=1)
    drawn = "\n".join(_lane(lane, columns, lineage, facts, numbers, ids) for lane in placed)
    failed = sum(len(each.failed) for each in facts.values())
    total = sum(map(len, columns.values()))
    told = [
        counted(len(columns), "table"),
        counted(total, "column"),
        counted(sum(lane.name != OUTSIDE for lane in placed), "store"),
        f"as of {at:%Y-%m-%d %H:%M} UTC",
    ]
    if failed:
        told.append(counted(failed, "failed check"))
    body = (
        "<header><div><h1>Where every column comes from</h1>"
        f'<p class="lead">{escape(" · ".join(told))}</p></div>{_TOOLS}</header>\n'
        f'<div class="scroll"><div class="graph" style="--layers:{depth}"><svg aria-hidden="true"></svg>\n'
        f"{drawn}\n</div></div>\n{_ANSWER}"
    )
    return framed("Column lineage", body, _data(columns, lineage, numbers, ids, chosen), style, script)


_TOOLS = (
    '<div class="tools js-only"><input type="search" id="search" placeholder="find a table or column  ( / )" '
    'aria-label="find a table or column"><span id="found" role="status"></span>'
    '<button type="button" id="all" aria-pressed="false">all columns</button>'
    '<span class="legend"><span><i class="up"></i>comes from</span><span><i class="down"></i>is made of it</span>'
    '<span><i class="rows"></i>decides about rows</span></span></div>'
)
_ANSWER = (
    '<aside id="answer" class="js-only" aria-label="lineage of the chosen column" hidden>'
    '<div class="about"><h2 id="chosen" aria-live="polite"></h2><p id="note"></p>'
    '<button type="button" id="clear">clear (Esc)</button></div>'
    '<section><h3 id="up-title"></h3><div id="up"></div></section>'
    '<section><h3 id="down-title"></h3><div id="down"></div></section></aside>'
)


def _lane(
    lane: Lane,
    columns: Mapping[str, Sequence[ShownColumn]],
    lineage: Lineage,
    facts: Mapping[str, TableFacts],
    numbers: Mapping[str, int],
    ids: Mapping[ColumnRef, int],
) -> str:
    def drawn(asset: str) -> str:
        return _table(asset, columns[asset], asset in lineage, facts.get(asset), numbers[asset], ids)

    cells = "".join(f'<div class="cell">{"".join(map(drawn, cell))}</div>' for cell in lane.cells)
    place = f"grid-row:{lane.band + 1};grid-column:{lane.first + 1} / span {len(lane.cells)}"
    return f'<section class="lane" style="{place}"><h2>{escape(lane.name)}</h2>{cells}</section>'


def _table(
    asset: str,
    columns: Sequence[ShownColumn],
    inside: bool,
    facts: TableFacts | None,
    number: int,
    ids: Mapping[ColumnRef, int],
) -> str:
    name = asset.partition("/")[2] if inside else asset
    rows = "".join(
        f'<li><button type="button" class="column" id="c{ids[ColumnRef(asset, column.name)]}" '
        f'title="{escape(_about(column))}">{escape(column.name)}</button></li>'
        for column in columns
    )
    return (
        f'<article id="t{number}" aria-label="{escape(asset)}"><button type="button" class="head" '
        f'title="{escape(asset)}"><b>{_breaking(name)}</b><small>{_facts(facts, len(columns))}</small></button>'
        f'<ul>{rows}</ul><p class="more"></p></article>'
    )


def _breaking(name: str) -> str:
    """A name that is broken behind an underscore or slash, where it is too long for a line."""
    return escape(name).replace("_", "_<wbr>").replace("/", "/<wbr>")


def _about(column: ShownColumn) -> str:
    return " · ".join(part for part in (column.name, column.type, column.description) if part)


def _facts(facts: TableFacts | None, columns: int) -> str:
    told = []
    if facts is not None:
        if facts.rows is not None:
            told.append(escape(counted(facts.rows, "row")))
        if facts.written:
            time = f"{facts.written:%Y-%m-%dT%H:%M:%SZ}"
            told.append(f'<time datetime="{time}">{facts.written:%Y-%m-%d %H:%M}</time>')
        else:
            told.append("not built yet")
    told = told or [escape(counted(columns, "column"))]
    text = " · ".join(told)
    if facts is not None and facts.failed:
        names = escape(", ".join(facts.failed))
        text += f' <em class="bad" title="{names}">{escape(counted(len(facts.failed), "check"))} failed</em>'
    return text


def _data(
    columns: Mapping[str, Sequence[ShownColumn]],
    lineage: Lineage,
    numbers: Mapping[str, int],
    ids: Mapping[ColumnRef, int],
    chosen: ColumnRef | None,
) -> dict[str, Any]:
    """What the script draws from: tables and columns by number."""
    values: list[list[int]] = []
    rows: list[list[int]] = []
    made: dict[str, str] = {}
    for asset, origins in lineage.items():
        # A file that was edited makes columns that the table has only when it is built next.
        for name, sources in origins.columns.items():
            if (later := ids.get(ColumnRef(asset, name))) is not None:
                values += [[ids[source], later] for source in sources if source in ids]
        rows += [[ids[source], numbers[asset]] for source in origins.rows if source in ids]
        for name, why in origins.made.items():
            if (later := ids.get(ColumnRef(asset, name))) is not None:
                made[str(later)] = why
    return {
        "tables": list(columns),
        "columns": [
            [numbers[asset], column.name, column.type, column.description]
            for asset, each in columns.items()
            for column in each
        ],
        "values": values,
        "rows": rows,
        "made": made,
        "chosen": ids.get(chosen) if chosen else None,
    }
