"""What keeping any store small has in common: how long things are kept, what is told of it, folders.

What belongs here: nothing that knows a particular store.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

GRACE = timedelta(days=1)
"""Age below which a file that no table needs may still be written or read by somebody.

Writes end within their time-out of minutes; a reader that takes its time over a stream may need longer.
"""


@dataclass(frozen=True)
class Terms:
    """How long what is not needed any more is kept.

    Args:
        retention: how far back the lake's versions can be read.
        grace: how long files and staging tables stay that may still be in use.
    """

    retention: timedelta
    grace: timedelta = GRACE


@dataclass(frozen=True)
class Upkeep:
    """What was done for one store.

    Args:
        store: its name.
        bytes_before, bytes_after: what it takes on disk (Redis: in memory), None where that cannot be asked.
        done: sentences about what was done or left for the next time.
        fault: why it was not, or not all of it, done; "" if all was.
    """

    store: str
    bytes_before: int | None
    bytes_after: int | None
    done: tuple[str, ...] = ()
    fault: str = ""


def files_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All files below a folder. What others delete meanwhile is left out."""
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            with suppress(FileNotFoundError):
                yield file, file.lstat()


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder, 0 if it is not there."""
    return sum(stat.st_size for _, stat in files_below(folder))


def counted(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2,000 files`; `many` where that is not the singular with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
