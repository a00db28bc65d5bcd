"""Who has the embedded engine open: a note beside its lock, for people. The lock does not depend on it."""

import json
import os
import sys
from pathlib import Path


def holder_file(path: Path) -> Path:
    """The note on the engine in folder `path`."""
    return path.with_name(f"{path.name}.holder")


def note_holder(path: Path, purpose: str) -> None:
    """Say that this process has the engine open."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]])
    new = path.with_name(f"{path.name}.holder.new")
    new.write_text(json.dumps({"pid": os.getpid(), "purpose": purpose or command or "python"}))
    new.replace(holder_file(path))


def holder_of(path: Path) -> str:
    """Words for whoever has the engine open."""
    try:
        holder = json.loads(holder_file(path).read_text())
        return f"process {holder['pid']} ({holder['purpose']})"
    except (OSError, ValueError, KeyError):  # it is just opening or just closing
        return "another process"
