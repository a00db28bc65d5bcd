"""Dagster's instance under `ML_ASSETS_HOME/dagster`: every entry point of ours goes through here, so that
the UI, the daemon and the command line share one history.
"""

import os

from dagster import DagsterInstance

from ml_assets.services.home import private_home
from ml_assets.settings import PROJECT_ROOT, Settings


def prepare_home(settings: Settings) -> None:
    """Create the folders, the home for its owner alone, and link dagster.yaml.

    It is safe to repeat, and from several processes at once.

    Raises:
        OSError: if the home cannot be written.
    """
    private_home(settings.home)
    for folder in (settings.dagster_home, settings.landing):
        folder.mkdir(parents=True, exist_ok=True)
    wanted = PROJECT_ROOT / "dagster.yaml"
    link = settings.dagster_home / "dagster.yaml"
    if link.is_symlink() and link.readlink() == wanted:
        return
    if link.exists() and not link.is_symlink():
        return  # somebody's own configuration stays
    fresh = link.with_name(f"dagster.yaml.{os.getpid()}")
    fresh.symlink_to(wanted)
    fresh.replace(link)


def open_instance(settings: Settings) -> DagsterInstance:
    """The instance of this home; also for the processes that we start and the libraries that look for it."""
    prepare_home(settings)
    os.environ.update(settings.child_environment())
    return DagsterInstance.from_config(str(settings.dagster_home))
