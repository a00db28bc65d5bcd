"""Handing the light registry to the graph: landing files that say what the registry says, and no more.

A file a day of the registry's own folder below `landing/runs`. Equal rows make equal bytes, so that adopting again
changes no file; a file that does change is read again by intake, and what it no longer holds goes.
"""

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ml_assets.contracts.experiments import EXPERIMENT_COLUMNS
from ml_assets.operations.light.content import ContentStore
from ml_assets.operations.light.registry import Registry, objects
from ml_assets.settings import Settings

TAG = "ml_assets.light"
"""Tag of an adopted run: what the light registry knows of it and the graph has no column for."""

_JSON = tuple(column.name for column in EXPERIMENT_COLUMNS if column.type == "json")


@dataclass(frozen=True)
class Adopted:
    """What was handed to the graph.

    Args:
        folder: of the landing files.
        runs, artifacts, training_data: how many there are in all.
        files_changed: landing files that are new or changed; none if the graph has been told all that before.
        lost: artifacts whose content is gone, as `run: path`; their runs were landed without them.
    """

    folder: Path
    runs: int
    artifacts: int
    training_data: int
    files_changed: int
    lost: tuple[str, ...] = ()


def adopt(registry: Registry, content: ContentStore, settings: Settings) -> Adopted:
    """Write the landing files of a registry, and show the files of its runs below `artifacts/runs`."""
    from filelock import FileLock

    if not registry.path.exists():
        return Adopted(settings.landing / "runs", 0, 0, 0, 0)
    # One at a time, or the older of two could be the last to write.
    with FileLock(registry.path.with_name("adopting.lock")):
        with registry.write() as connection:
            (registry_id,) = connection.execute("SELECT id FROM registry").fetchone()
            runs = objects(connection.execute("SELECT * FROM ml_experiments ORDER BY created_at, id"))
            artifacts = objects(
                connection.execute("SELECT * FROM ml_model_artifacts ORDER BY experiment_id, path")
            )
            data = objects(
                connection.execute("SELECT * FROM ml_training_data ORDER BY experiment_id, dataset_name, id")
            )
            named = {(row["id"], "") for row in runs}
            named |= {(row["experiment_id"], row["sha256"]) for row in artifacts}
            # From here on nobody collects what is about to be landed; what was landed before stays, too.
            connection.executemany("INSERT OR IGNORE INTO landed VALUES (?, ?)", sorted(named))
        folder = settings.landing / "runs" / f"light-{registry_id}"
        files_of, data_of = _by_run(artifacts), _by_run(data)
        lost, days = [], defaultdict[str, list[bytes]](list)
        for run in runs:
            files = files_of[run["id"]]
            gone = content.show(run["id"], {file["path"]: file["sha256"] for file in files}) if files else []
            lost += [f"{run['id']}: {path}" for path in gone]
            view = content.view(run["id"]).as_uri() if files else None
            days[run["created_at"][:10]].append(_line(run, files, data_of[run["id"]], view))
        changed = _write(folder, {f"{day}.jsonl": b"".join(lines) for day, lines in days.items()})
        with registry.write() as connection:
            connection.execute("DELETE FROM landed")
            connection.executemany("INSERT INTO landed VALUES (?, ?)", sorted(named))
    return Adopted(folder, len(runs), len(artifacts), len(data), changed, tuple(lost))


def _by_run(rows: list[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    found = defaultdict[str, list[dict[str, Any]]](list)
    for row in rows:
        found[row["experiment_id"]].append(row)
    return found


def _line(
    run: dict[str, Any], files: list[dict[str, Any]], data: list[dict[str, Any]], view: str | None
) -> bytes:
    """A run as a row of the stream `runs`, with everything that is known of it."""
    from ml_assets.intake.artifacts import DATASETS_TAG  # by which the graph learns of a run's data

    row = {("run_id" if name == "id" else name): value for name, value in run.items() if value is not None}
    row |= {name: json.loads(row[name]) for name in _JSON if name in row}
    kept: dict[str, Any] = {}
    if files:
        known = ("path", "artifact_type", "sha256", "size_bytes", "created_at")
        kept["artifacts"] = [
            {name: file[name] for name in known}
            | ({"metadata": json.loads(file["metadata"])} if file["metadata"] is not None else {})
            for file in files
        ]
        if "artifact_uri" in row:
            kept["artifact_uri"] = row["artifact_uri"]
        row["artifact_uri"] = view
    if kept:
        row["tags"] = {**row.get("tags", {}), TAG: kept}
    if data:
        told = {"dataset_name": "name", "file_path": "source"}
        same = ("context", "digest", "row_count", "feature_count")
        datasets = [
            {told.get(name, name): each[name] for name in (*told, *same) if each[name] is not None}
            for each in data
        ]
        row["tags"] = {**row.get("tags", {}), DATASETS_TAG: datasets}
    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _write(folder: Path, contents: dict[str, bytes]) -> int:
    """Make the folder hold these files: whole ones, in place of those that differ; returns how many did.

    A file whose rows are gone is emptied and not removed: intake keeps what a removed file has said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.jsonl"):
        contents.setdefault(file.name, b"")
    changed = 0
    # Emptied days come last: a run that has moved from one is there twice for a moment, rather than not at all.
    for name, content in sorted(contents.items(), key=lambda each: (not each[1], each[0])):
        path = folder / name
        if path.exists() and path.read_bytes() == content:
            continue
        fresh = path.with_name(f"{name}.partial")
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        changed += 1
    return changed
