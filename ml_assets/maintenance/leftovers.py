"""What killed processes leave on disk: folders into which DuckDB spilled, and unpacked copies of landing files.

Both are removed with what made them. Those of a process that was killed stay, and nobody else can use them,
because each has a name of its own.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from ml_assets.intake.files import UNPACKED_PREFIX
from ml_assets.lib.words import counted
from ml_assets.stores.files import files_below, folder_bytes
from ml_assets.tables.store import Maintained, Retention


class TemporaryFiles(Maintained):
    """Folders of killed processes.

    Args:
        home: folder of everything that is kept.
    """

    name: ClassVar[str] = "temporary files"

    def __init__(self, home: str) -> None:
        self._home = home

    def size(self) -> int:
        """Bytes that lie in such folders, those included that are in use."""
        return sum(folder_bytes(folder) for folder in _folders(self._home))

    def maintain(self, retention: Retention) -> Iterator[str]:
        """Remove folders in which nothing was written for so long that their processes must be gone."""
        oldest = time.time() - retention.grace.total_seconds()
        abandoned = [folder for folder in _folders(self._home) if _touched(folder) < oldest]
        for folder in abandoned:
            shutil.rmtree(folder, ignore_errors=True)  # whoever it belongs to may just be removing it
        if abandoned:
            yield f"Removed {counted(len(abandoned), 'folder')} of killed processes."


def _folders(home: str) -> list[Path]:
    spilled = (Path(home) / "tmp" / "duckdb").glob("*")
    unpacked = Path(tempfile.gettempdir()).glob(f"{UNPACKED_PREFIX}*")
    return [each for each in (*spilled, *unpacked) if _is_own(each)]


def _is_own(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()


def _touched(folder: Path) -> float:
    """When anything in it was last written; a folder that has just gone was written now."""
    try:
        return max([folder.lstat().st_mtime, *(stat.st_mtime for _, stat in files_below(folder))])
    except FileNotFoundError:
        return time.time()
