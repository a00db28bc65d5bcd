"""Where tables stand on the page of the graph: from left to right by the way of a row, in one lane a store.

A table stands one layer right of its last parent. Lanes whose layers do not meet share a band, so that the page stays
low. Within a lane and layer tables stand in the order of what they are joined to, so that few lines cross.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

_SWEEPS = 8


@dataclass(frozen=True)
class Lane:
    """The tables of one store.

    Args:
        name: of the store.
        band: row of the page, from 0.
        first: its leftmost layer, from 0.
        cells: the tables of each of its layers from there, from top to bottom.
    """

    name: str
    band: int
    first: int
    cells: Sequence[Sequence[str]]


def layers(parents: Mapping[str, Collection[str]]) -> dict[str, int]:
    """For each table the length of the longest way to it. Of a circle of tables one line is left out."""
    found: dict[str, int] = {}
    under_way: set[str] = set()

    def layer(table: str) -> int:
        if table not in found:
            under_way.add(table)
            above = [layer(parent) for parent in parents.get(table, ()) if parent not in under_way]
            under_way.discard(table)
            found[table] = max(above, default=-1) + 1
        return found[table]

    for table in parents:
        layer(table)
    return found


def lanes(parents: Mapping[str, Collection[str]], store_of: Mapping[str, str]) -> list[Lane]:
    """The tables in lanes and layers.

    Args:
        parents: of every table; those that are nowhere else a key have none.
        store_of: the lane of each.
    """
    depth = layers(parents)
    of_lane: dict[str, list[str]] = {}
    for table in sorted(depth, key=lambda each: (depth[each], each)):
        of_lane.setdefault(store_of[table], []).append(table)
    # Stores that rows reach early come first.
    order = sorted(
        of_lane, key=lambda lane: (sum(depth[t] for t in of_lane[lane]) / len(of_lane[lane]), lane)
    )
    bands: list[list[tuple[int, int]]] = []
    band_of: dict[str, int] = {}
    for lane in order:
        first, last = depth[of_lane[lane][0]], depth[of_lane[lane][-1]]
        free = (i for i, taken in enumerate(bands) if all(last < a or first > b for a, b in taken))
        band = next(free, len(bands))
        if band == len(bands):
            bands.append([])
        bands[band].append((first, last))
        band_of[lane] = band
    cells = {
        (band_of[lane], layer): [table for table in of_lane[lane] if depth[table] == layer]
        for lane in order
        for layer in range(depth[of_lane[lane][0]], depth[of_lane[lane][-1]] + 1)
    }
    _untangle(cells, parents)
    return [
        Lane(
            lane,
            band_of[lane],
            depth[of_lane[lane][0]],
            [
                cells[band_of[lane], layer]
                for layer in range(depth[of_lane[lane][0]], depth[of_lane[lane][-1]] + 1)
            ],
        )
        for lane in order
    ]


def _untangle(cells: Mapping[tuple[int, int], list[str]], parents: Mapping[str, Collection[str]]) -> None:
    """Order the tables of each cell by the middle of what they are joined to, to the left and to the right in turn.

    Of the orders that are tried the one stays in which the fewest lines cross.
    """
    children: dict[str, list[str]] = {}
    for table, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(table)
    layer = {table: key[1] for key, cell in cells.items() for table in cell}
    place: dict[str, float] = {}

    def settle(key: tuple[int, int]) -> None:
        cell = cells[key]
        place.update({table: key[0] + (i + 0.5) / len(cell) for i, table in enumerate(cell)})

    def crossings() -> int:
        lines = [(parent, table) for parent, below in children.items() for table in below]
        return sum(
            (place[a] - place[c]) * (place[b] - place[d]) < 0
            for (a, b), (c, d) in combinations(lines, 2)
            if (layer[a], layer[b]) == (layer[c], layer[d])
        )

    for key in cells:
        settle(key)
    best, fewest = {key: list(cell) for key, cell in cells.items()}, crossings()
    for sweep in range(_SWEEPS):
        leftwards = sweep % 2 == 1
        joined: Mapping[str, Collection[str]] = children if leftwards else parents
        for key in sorted(cells, key=lambda each: -each[1] if leftwards else each[1]):

            def middle(table: str, joined: Mapping[str, Collection[str]] = joined) -> float:
                near = [place[each] for each in joined.get(table, ())]
                return sum(near) / len(near) if near else place[table]

            cells[key].sort(key=middle)
            settle(key)
        if (found := crossings()) < fewest:
            best, fewest = {key: list(cell) for key, cell in cells.items()}, found
    for key, cell in best.items():
        cells[key][:] = cell
