"""Which of many episodes are believed, so that of those that are told few are due to chance.

What belongs here: the correction for how many series were looked at. Each UTC day is one family: all models, metrics and
slices that were judged on it. Their p values are corrected by Benjamini and Hochberg (1995), who let the p values of a
day depend on each other as those of a model's metrics do; a series that said nothing counts with p = 1. An episode is
believed on the first of its days on which its corrected p is at most the level, and opens then: of the episodes that open
on a day, the level is the share that is expected to be false. One that is never believed was none.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import NamedTuple

import numpy as np

from ml_assets.lib.episodes import Episode

LEVEL = 0.05
"""Share of a day's new episodes that may be false."""


class Believed(NamedTuple):
    """An episode that is believed.

    Args:
        place: its place among those that were asked.
        episode: the same, opened when it was believed.
        corrected_p: on that day.
    """

    place: int
    episode: Episode
    corrected_p: float


def believed(episodes: Sequence[Episode], judged: Mapping[date, int], level: float = LEVEL) -> list[Believed]:
    """Those of the episodes that are believed, in their order.

    Args:
        episodes: of all series.
        judged: how many series were judged on each day; at least as many as have evidence on it.
        level: share of false ones among a day's new episodes.
    """
    days: dict[date, list[tuple[float, int, int]]] = defaultdict(list)
    for place, episode in enumerate(episodes):
        for which, evidence in enumerate(episode.evidence):
            days[evidence.at.date()].append((evidence.p, place, which))
    first: dict[int, tuple[int, float]] = {}
    for day in sorted(days):
        found = sorted(days[day])
        ps = np.array([p for p, _, _ in found])
        family = max(judged.get(day, 0), len(found))
        corrected = np.minimum.accumulate((ps * family / np.arange(1, len(ps) + 1))[::-1])[::-1].clip(max=1.0)
        for (_, place, which), p in zip(found, corrected.tolist(), strict=True):
            if p <= level:
                first.setdefault(place, (which, p))
    return [
        Believed(place, _opened(episodes[place], which), p) for place, (which, p) in sorted(first.items())
    ]


def _opened(episode: Episode, which: int) -> Episode:
    """The episode, opened on the day with this evidence."""
    return replace(episode, opened_at=episode.evidence[which].at) if which else episode
