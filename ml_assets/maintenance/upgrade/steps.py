"""The steps, by the number of the format that each leads to.

A step may be killed at any point and done again, changes nothing where there is nothing to change, makes no store that is
not there, and leaves the content hash of every table as it is. New columns and other DDL are no business of a step: a
table is brought to its contract by whoever writes to it next (tables/evolution.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

from ml_assets.maintenance.upgrade.step_1 import move_pins
from ml_assets.settings import Settings


@dataclass(frozen=True)
class Step:
    """One change of a home.

    Args:
        number: of the format that it leads to.
        title: what it does, as it is told and recorded.
        run: does it.
    """

    number: int
    title: str
    run: Callable[[Settings], None]


STEPS = (Step(1, "pins of the lake lie in its catalog, with what each version holds", move_pins),)
"""All steps there ever were, each once, and none is ever changed: a home of any release is brought to this one's."""
