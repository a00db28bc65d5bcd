"""Keeping a home small: every store, and what grows beside the stores, in one round.

What belongs here: what is looked after, in which order, by which settings. How is said in maintenance/ and stores/.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ml_assets.contracts import tables
from ml_assets.maintenance import MaintenanceReport, maintain
from ml_assets.maintenance.home_parts import QuarantineTexts, home_parts
from ml_assets.operations.light.upkeep import LightFiles
from ml_assets.settings import Settings
from ml_assets.tables.store import Retention


def keep_small(settings: Settings, resources: Mapping[str, Any], instance: Any) -> list[MaintenanceReport]:
    """One round of maintenance, as `quality/maintenance` makes it every night.

    Faults are told in the reports, without passwords.

    Args:
        settings: how long things are kept.
        resources: as `resources.store_resources` gives them.
        instance: Dagster's (`DagsterInstance`), whose history is kept small, too.
    """
    kept = {each.asset: each.kept_days for each in tables(settings).values() if each.kept_days}
    found = maintain(
        resources,
        Retention(versions=timedelta(days=settings.retention_days), kept_days=kept),
        first=[QuarantineTexts(settings, resources)],
        last=[*home_parts(settings, resources, instance), LightFiles(settings)],
    )
    return [replace(each, fault=settings.masked(each.fault)) for each in found]
