"""The home: the folder of everything that is kept, and for its owner alone.

What belongs here: making it, and keeping others out. What lies in it is the business of who puts it there.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path


def private_home(home: Path) -> Path:
    """Make the home with mode 0700, whatever the umask, and narrow one that others may look into.

    A home that belongs to somebody else stays as its owner has it, and so does a folder with the sticky bit, such as
    /tmp: it is meant for everybody.

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
    return home
