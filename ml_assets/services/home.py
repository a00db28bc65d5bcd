"""The home: the folder of everything that is kept, and for its owner alone.

What belongs here: making it, keeping others out, and the file that says which format it has. What does not: what lies in
it, which is the business of who puts it there, and how a home of a former format is brought to this one
(maintenance/upgrade).
"""

import os
import stat
import uuid
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from ml_assets.home import is_kept
from ml_assets.lib import home_format
from ml_assets.lib.home_format import FORMAT, HomeFormat

FORMAT_FILE = "format.json"
"""Name of the file in the home; that of a home of before there were formats is missing."""


def private_home(home: Path) -> Path:
    """Make the home with mode 0700, whatever the umask, and narrow one that others may look into.

    A home that belongs to somebody else stays as its owner has it, and so does a folder with the sticky bit, such as
    /tmp: it is meant for everybody. A home in which nothing was kept before is of this release's format.

    Returns:
        The home.

    Raises:
        OSError: it cannot be made.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = home.stat()
    open_to_others = found.st_mode & 0o077 and not found.st_mode & stat.S_ISVTX
    if open_to_others and found.st_uid == os.geteuid():
        # Some mounts have no modes of their own, and some cannot be written; whoever mounted them decides.
        with suppress(OSError):
            home.chmod(stat.S_IMODE(found.st_mode) & 0o700)
    if not is_kept(home) and not os.path.lexists(home / FORMAT_FILE):
        # Whoever may not write there, or has no room left, keeps nothing there either: readers of servers go on.
        with suppress(OSError):
            write_format(home, HomeFormat(FORMAT, release()))
    return home


def read_format(home: Path) -> HomeFormat:
    """The format of a home; number 0 if it says none, and this release's if nothing was ever kept there.

    Raises:
        Refusal: its file is damaged.
        OSError: it cannot be read.
    """
    file = home / FORMAT_FILE
    if os.path.isfile(file):  # noqa: PTH113 - says no where one may not look
        return home_format.from_text(file.read_text(errors="replace"), file)
    return HomeFormat(0 if is_kept(home) else FORMAT)


def refuse_newer_home(home: Path) -> None:
    """Refuse a home that a newer release has made or opened; nothing but one small file is read.

    Raises:
        Refusal: it is one, or its file is damaged.
    """
    told = read_format(home)
    home_format.refuse_newer(f"The home {home}", told.number, told.written_by)


def write_format(home: Path, told: HomeFormat) -> None:
    """Have a home say its format, all of it or what it said before.

    Raises:
        OSError: it cannot be written.
    """
    # Containers that share a home may have the same process ids, and threads of one process do.
    draft = home / f"{FORMAT_FILE}.{uuid.uuid4().hex}"
    with draft.open("w") as file:
        file.write(home_format.to_text(told))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(home / FORMAT_FILE)


def release() -> str:
    """Version of this release; "" where the package was not installed."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version("ml-assets")
    return ""
