"""Another fortnight takes the place of the demo, or nothing does: what intake holds of it is removed.

A landing file that is gone stays loaded, as everybody's does; so the places of the files that the demo removed are
erased, with their rows. The manifest names them until that is done, so a kill loses none.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from ml_assets.contracts import STREAMS
from ml_assets.demo.manifest import Manifest, only_one
from ml_assets.intake import ledger
from ml_assets.intake.ingest import IntakeReport, Lake, ingesting
from ml_assets.intake.judge import Bounds
from ml_assets.intake.quarantine import LANDING_ROOT
from ml_assets.settings import Settings
from ml_assets.stores import touched_days
from ml_assets.stores.touched_days import Postgres


def erase_former(settings: Settings, lake: Lake, postgres: Postgres) -> None:
    """Erase the files of an earlier fortnight; the next refresh rebuilds what they touched."""
    manifest = Manifest.read(settings.home)
    if manifest is None or not manifest.former:
        return
    with only_one(settings):
        manifest = Manifest.read(settings.home)
        if manifest is None:
            return
        # A file of the same name that this fortnight wrote replaces the former one when it is taken in.
        erase_files(settings, lake, postgres, manifest.former)
        manifest.former = []
        manifest.write(settings.home)


def erase_files(settings: Settings, lake: Lake, postgres: Postgres, names: Iterable[str]) -> None:
    """Remove from intake what it holds of those of these landing files that are gone.

    Args:
        names: relative to the landing folder.
    """
    gone = [name.split("/", 1) for name in names if not (settings.landing / name).exists()]
    for stream in STREAMS:
        item_names = [item_name for of, item_name in gone if of == stream]
        _erase(settings, lake, postgres, stream, item_names, of_mlflow=False)


def erase_runs(settings: Settings, lake: Lake, postgres: Postgres, run_ids: list[str]) -> None:
    """Remove from intake what it holds of these runs of MLflow."""
    for stream in STREAMS.values():
        if stream.from_mlflow:
            _erase(settings, lake, postgres, stream.name, run_ids, of_mlflow=True)


def _erase(
    settings: Settings, lake: Lake, postgres: Postgres, stream: str, item_names: list[str], of_mlflow: bool
) -> None:
    touched_days.ensure_schema(postgres)
    with postgres.connect() as connection:
        roots = ledger.roots_of(connection, stream, item_names)
    # The root of a tracking store is its address; a home that was moved has had another one.
    roots = [root for root in roots if (root != LANDING_ROOT) == of_mlflow]
    if roots:
        bounds = Bounds(settings.partitions_start, datetime.now(UTC))
        with ingesting(STREAMS[stream], lake, postgres, bounds, IntakeReport()) as ingest:
            ingest.erase(roots, item_names)
