"""A map of documents or runs as one HTML page that asks nothing of any network.

What belongs here: rows in, a page out. What does not: reading rows, or the files of style and script, which are handed
in. The clusters stand in the page and are read without the script; it draws the map.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ml_assets.lib.clusters import NOISE
from ml_assets.lib.html_page import LONGEST_TEXT, framed, text
from ml_assets.lib.words import counted

_DECIMALS = 2
"""Of a place: a hundredth of the distance that t-SNE gives near neighbours."""


def map_page(subject: str, rows: Sequence[Mapping[str, Any]], style: str, script: str) -> str:
    """The page.

    Args:
        subject: what is on the map, such as "documents".
        rows: with id, title, cluster, label, x and y.
        style: CSS.
        script: JavaScript that finds its data in the element `data`.
    """
    sizes = Counter(row["cluster"] for row in rows)
    labels = {row["cluster"]: row["label"] for row in rows}
    order = sorted(sizes, key=lambda cluster: (cluster == NOISE, -sizes[cluster], cluster))
    place = {cluster: n for n, cluster in enumerate(order)}
    data = {
        # The colour goes with the id, which stays; what the script counts by is the place in the list.
        "clusters": [[cluster, _label(cluster, labels[cluster])] for cluster in order],
        "x": [round(row["x"], _DECIMALS) for row in rows],
        "y": [round(row["y"], _DECIMALS) for row in rows],
        "cluster": [place[row["cluster"]] for row in rows],
        "title": [(row["title"] or row["id"])[:LONGEST_TEXT] for row in rows],
        "id": [row["id"][:LONGEST_TEXT] for row in rows],
    }
    items = "".join(
        f'<li><button type="button" aria-pressed="false" data-place="{n}"><i></i>'
        f"<span>{text(_label(cluster, labels[cluster]))}</span><b>{sizes[cluster]:,}</b></button></li>"
        for n, cluster in enumerate(order)
    )
    lead = f"{len(rows):,} {subject} in {counted(len(order) - (NOISE in sizes), 'cluster')}"
    if sizes[NOISE]:
        lead += f"; {sizes[NOISE]:,} in none"
    body = (
        f"<h1>Map of {text(subject)}</h1>\n"
        f'<p class="lead">{text(lead)}. What lies together is alike in meaning; distances between clusters, and '
        "directions, mean little.</p>\n"
        '<div class="board"><section class="map"><div class="bar">'
        '<input type="search" placeholder="Title or id" aria-label="Title or id">'
        '<button type="button" id="all">Show all</button><output></output></div>'
        f'<div class="chart"><canvas role="img" aria-label="Map of {text(subject)}"></canvas>'
        '<div class="readout" hidden></div></div></section>\n'
        f'<section class="list"><h2>Clusters</h2><ol>{items}</ol></section></div>'
    )
    return framed(f"Map of {subject}", body, data, style, script)


def _label(cluster: int, label: str | None) -> str:
    return "in no cluster" if cluster == NOISE else label or f"cluster {cluster}"
