"""The format of a home, as a text: its number, and the steps that brought it there.

The number says what a release expects to find in a home. It rises with each change that a release before would not
understand, or that a table does not make by itself when it is next written; `maintenance/upgrade` has a step for each.
Nothing here opens a file.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_assets.errors import Refusal

FORMAT = 1
"""Number of the homes that this release makes, and to which it brings older ones. 0 is a home without a number."""


@dataclass(frozen=True)
class DoneStep:
    """A step that was done.

    Args:
        number: of the format that it led to.
        title: what it did.
        done_at: when it was done, UTC, ISO.
        version: of the release that did it.
    """

    number: int
    title: str
    done_at: str
    version: str


@dataclass(frozen=True)
class HomeFormat:
    """What a home says of itself.

    Args:
        number: of its format.
        written_by: version of the release that brought it there.
        steps: those that were done, in order; none in a home that was made so.
    """

    number: int
    written_by: str = ""
    steps: tuple[DoneStep, ...] = ()

    def after(self, step: DoneStep) -> "HomeFormat":
        """The same with one more step done."""
        return replace(self, number=step.number, written_by=step.version, steps=(*self.steps, step))


def to_text(told: HomeFormat) -> str:
    """The file's text, the same for the same format."""
    return json.dumps(asdict(told), indent=1, sort_keys=True) + "\n"


def from_text(text: str, file: object) -> HomeFormat:
    """The format that a file tells of; what a newer release says beyond the number is passed over.

    Args:
        file: where the text stands, for the sentence.

    Raises:
        Refusal: it is not such a text.
    """
    try:
        told = json.loads(text)
        number = told["number"]
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise TypeError(number)
        steps = () if number > FORMAT else tuple(_done(each) for each in told["steps"])
        return HomeFormat(number, str(told.get("written_by", "")), steps)
    except (ValueError, KeyError, TypeError) as fault:
        raise Refusal(
            f"{file} does not say which format the home has: it was changed or damaged. Bring it back from a backup; or "
            "remove it, if this release is the newest that ever opened the home, and all upgrade steps are "
            "done again, which changes nothing that is done."
        ) from fault


def _done(step: Any) -> DoneStep:
    return DoneStep(step["number"], step["title"], step["done_at"], step["version"])


def refuse_newer(what: str, number: int, written_by: str = "") -> None:
    """Refuse what this release does not know.

    Args:
        what: it is, as a sentence begins with it.
        number: of its format.
        written_by: version of the release that made it; "" if that is not known.

    Raises:
        Refusal: the number is higher than this release's.
    """
    if number > FORMAT:
        release = f"release {written_by}" if written_by else "a newer release"
        raise Refusal(
            f"{what} has format {number}, which {release} has made, and this release knows formats up to {FORMAT}: "
            "install that release or a later one (nothing was changed), or restore a backup of before the upgrade into "
            "another home."
        )


def due(number: int, known: Iterable[int]) -> list[int]:
    """The numbers of the steps that a home of this format lacks, in the order in which they are done."""
    return sorted(each for each in known if each > number)
