"""Folders in which stores keep their data: common ground, as postgres_table is."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


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
