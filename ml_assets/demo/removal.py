"""The demo leaves a home: its landing files, its runs in MLflow, what intake holds of them, its own folder.

Each step is derived from the manifest and finds done what was done before, so a call that was killed is finished
by the next one. The manifest, which is then marked as leaving, goes last.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.demo.manifest import Manifest, hash_file, only_one
from ml_assets.demo.withdrawal import erase_files, erase_runs
from ml_assets.errors import Refusal
from ml_assets.intake.ingest import Lake
from ml_assets.operations import performance_alerts, run_watch
from ml_assets.settings import Settings
from ml_assets.stores.touched_days import Postgres

if TYPE_CHECKING:
    from ml_assets.demo.tracking import Tracker
    from ml_assets.resources.postgres import PostgresResource


@dataclass
class Removed:
    """What a call removed of the demo's input.

    Args:
        files: how many landing files.
        changed: landing files that are not as the demo wrote them, relative to the landing folder; they stay.
        unknown: landing files of which no hash was noted when they were written; they stay, too.
        tracked: how many of the home's MLflow, by `run`, `model` and `experiment`.
    """

    files: int = 0
    changed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    tracked: dict[str, int] = field(default_factory=dict)


def require_demo(settings: Settings) -> None:
    """Refuse a home without the demo. This starts and makes nothing.

    Raises:
        Refusal: there is no demo, or its manifest cannot be read.
    """
    shutil.rmtree(_gone(settings), ignore_errors=True)  # of a call that was killed at its very end
    if Manifest.read(settings.home) is None:
        raise Refusal(f"There is no demo in {settings.home}, so there is nothing to remove.")


def remove_input(settings: Settings, lake: Lake, postgres: Postgres) -> Removed:
    """Remove the demo's landing files and runs, in MLflow and in intake; a refresh removes what was built of them.

    Raises:
        Refusal: there is no demo any more, or another process holds it.
    """
    with only_one(settings):
        if (manifest := Manifest.read(settings.home)) is None:
            raise Refusal(f"The demo in {settings.home} was removed by another process meanwhile.")
        removed = Removed()
        tracker = _tracker(settings)
        if tracker:
            manifest.tracked = sorted({*manifest.tracked, *tracker.run_ids()})
        manifest.leaving = True
        manifest.write(settings.home)
        _remove_files(settings, manifest, removed)
        if tracker:
            removed.tracked = tracker.erase()
        # Before the refresh, which carries the others to ClickHouse, and while it is known whose runs these are.
        performance_alerts.forget(postgres, [*manifest.tracked, *_plain(settings)])
        erase_files(settings, lake, postgres, _files(manifest))
        erase_runs(settings, lake, postgres, manifest.tracked)
    return removed


def remove_rest(settings: Settings, postgres: "PostgresResource") -> None:
    """Remove what the watch found of the demo's runs; then the demo's folder, the manifest with it, all at once.

    Last of all, since a refresh closes the episodes of runs that are gone.
    """
    with only_one(settings):
        if manifest := Manifest.read(settings.home):
            run_watch.forget(postgres, [*manifest.tracked, *_plain(settings)])
        Manifest.folder(settings.home).rename(_gone(settings))
        shutil.rmtree(_gone(settings))


def _tracker(settings: Settings) -> "Tracker | None":
    """The runs of the demo in MLflow; None if the demo was killed before it had any, so that no store is made."""
    if not Path(settings.embedded_mlflow_uri.removeprefix("sqlite:///")).exists():
        return None
    # Only here: it imports mlflow, which takes seconds.
    from ml_assets.demo.tracking import Tracker

    return Tracker(settings)


def _remove_files(settings: Settings, manifest: Manifest, removed: Removed) -> None:
    """Remove the landing files that are as the demo wrote them, or as it would write over them when it went on."""
    finished = {name: day.hashes.get(name) for day in manifest.finished.values() for name in day.files}
    for name in _files(manifest):
        path = settings.landing / name
        path.with_name(f"{path.name}.partial").unlink(missing_ok=True)
        if not path.exists():
            continue
        if name in finished and finished[name] is None:
            removed.unknown.append(name)
        elif name in finished and finished[name] != hash_file(path):
            removed.changed.append(name)
        else:
            path.unlink()
            removed.files += 1


def _plain(settings: Settings) -> list[str]:
    """Ids of the demo's runs that are not in MLflow."""
    return [folder.name for folder in settings.demo_files.glob("*")]


def _files(manifest: Manifest) -> list[str]:
    return sorted({*manifest.former, *manifest.written()})


def _gone(settings: Settings) -> Path:
    return settings.home / ".demo-removed"
