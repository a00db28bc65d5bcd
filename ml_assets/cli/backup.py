"""What `ml-assets backup` and `restore` print."""

import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_assets.cli.report import progress_bars
from ml_assets.errors import Refusal
from ml_assets.lib import backup as manifests
from ml_assets.lib.backup import Manifest
from ml_assets.lib.words import counted
from ml_assets.maintenance.backup import BackupFolder, back_up, restore
from ml_assets.settings import Settings

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def make(settings: Settings, folder: Path, keep: int | None, as_json: bool) -> None:
    """Make a backup and say so."""
    with progress_bars(quiet=as_json) as bars:
        made = back_up(settings, BackupFolder(folder), bars, keep)
    manifest = made.manifest
    if as_json:
        told = {"new_files": made.new_files, "new_bytes": made.new_bytes, "removed": made.removed}
        print(json.dumps(_told(made.id, manifest) | told | {"seconds": made.seconds}))
        return
    print(
        f"Backup {made.id} of {manifest.home} holds {counted(len(manifest.tables), 'table')} and "
        f"{counted(manifest.files, 'file')} ({_size(manifest.bytes)}), {_size(made.new_bytes)} of it new in {folder}. "
        f"It took {made.seconds:.1f} s, of which writers waited {manifest.paused_s:.1f} s."
    )
    if made.removed:
        print(f"Removed {counted(len(made.removed), 'older backup')}, which frees {_size(made.freed_bytes)}.")
    _tell_notes(manifest)


def listed(folder: Path, as_json: bool) -> None:
    """List the backups of a folder; one whose manifest cannot be read hides no other."""
    held = BackupFolder(folder)
    held.require()
    found: dict[str, Manifest] = {}
    for backup_id in held.ids():
        try:
            found[backup_id] = held.read(backup_id)
        except Refusal as fault:
            print(fault, file=sys.stderr)
    if as_json:
        print(json.dumps([_told(backup_id, manifest) for backup_id, manifest in found.items()]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for title in ("id", "made", "home", "tables", "rows", "files", "bytes"):
        table.add_column(title, no_wrap=title == "id", overflow="fold")
    for backup_id, manifest in found.items():
        made = datetime.fromisoformat(manifest.made_at)
        rows = sum(fact.rows for fact in manifest.tables.values())
        counts = (len(manifest.tables), rows, manifest.files)
        moment = f"{made:%Y-%m-%d %H:%M} UTC"
        table.add_row(
            backup_id, moment, manifest.home, *(f"{each:,}" for each in counts), _size(manifest.bytes)
        )
    Console().print(table)


def verify(folder: Path, at: str | None, as_json: bool) -> bool:
    """Hold backups against their manifests; whether all are as they were written.

    Args:
        at: how the id of the one begins that is looked at; None for all of them.
    """
    held = BackupFolder(folder)
    held.require()
    chosen = held.ids() if at is None else [manifests.chosen(held.ids(), at, folder)]
    if not chosen:
        manifests.chosen([], None, folder)
    found: dict[str, list[str]] = {}
    with progress_bars(quiet=as_json) as bars:
        for backup_id in chosen:
            try:
                found[backup_id] = held.damage(held.read(backup_id), bars)
            except Refusal as fault:
                found[backup_id] = [str(fault)]
    if as_json:
        print(json.dumps({"backups": found}))
    else:
        for backup_id, damage in found.items():
            print(f"{backup_id}: {'is damaged.' if damage else 'is as it was written.'}")
            for each in damage:
                print(f"  {each}", file=sys.stderr)
    return not any(found.values())


def bring_back(settings: Settings, folder: Path, at: str | None, as_json: bool) -> None:
    """Restore a backup and say so."""
    with progress_bars(quiet=as_json) as bars:
        restored = restore(settings, BackupFolder(folder), bars, at)
    if as_json:
        told = _told(restored.id, restored.manifest) | {
            "home": str(restored.home),
            "seconds": restored.seconds,
        }
        print(json.dumps(told))
        return
    print(
        f"{restored.home} is what {restored.manifest.home} was at {restored.manifest.made_at}: rows and content "
        f"hashes of {counted(restored.tables, 'table')} are the same. It took {restored.seconds:.1f} s."
    )
    _tell_notes(restored.manifest)


def _tell_notes(manifest: Manifest) -> None:
    for each in manifest.under_way:
        print(f"Under way: {each}")
    for each in manifest.left_out:
        print(f"Not in it: {each}")


def _told(backup_id: str, manifest: Manifest) -> dict[str, Any]:
    """A manifest without the list of its files."""
    return {
        "id": backup_id,
        "made_at": manifest.made_at,
        "home": manifest.home,
        "home_format": manifest.home_format,
        "versions": dict(manifest.versions),
        "tables": {name: asdict(fact) for name, fact in manifest.tables.items()},
        "files": manifest.files,
        "bytes": manifest.bytes,
        "paused_s": manifest.paused_s,
        "left_out": [asdict(each) for each in manifest.left_out],
        "under_way": list(manifest.under_way),
    }


def _size(count: int) -> str:
    for unit, size in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
