"""Another fortnight takes the place of the demo: what the graph holds of the former one is withdrawn.

A landing file that is gone stays loaded, as everybody's does; so the files that the demo removed are retired in
the ledger, as by `ml-assets retire`. The manifest names them until that is done, so a kill loses none.
"""

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


def retire_former(settings: Settings, lake: Lake, postgres: Postgres) -> None:
    """Retire the files of an earlier fortnight; the next refresh rebuilds what they touched."""
    manifest = Manifest.read(settings.home)
    if manifest is None or not manifest.former:
        return
    with only_one(settings):
        manifest = Manifest.read(settings.home)
        if manifest is None:
            return
        touched_days.ensure_schema(postgres)
        bounds = Bounds(settings.partitions_start, datetime.now(UTC))
        # A file of the same name that this fortnight wrote replaces the former one when it is taken in.
        gone = [name.split("/", 1) for name in manifest.former if not (settings.landing / name).exists()]
        for stream in {stream for stream, _ in gone}:
            with postgres.connect() as connection:
                known = ledger.known_places(connection, stream, LANDING_ROOT)
            item_names = [item_name for of, item_name in gone if of == stream and item_name in known]
            if item_names:
                with ingesting(STREAMS[stream], lake, postgres, bounds, IntakeReport()) as ingest:
                    ingest.withdraw(LANDING_ROOT, item_names)
        manifest.former = []
        manifest.write(settings.home)
