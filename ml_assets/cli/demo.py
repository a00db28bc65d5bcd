"""`ml-assets demo`: start the services, train what is missing, refresh the graph; `--remove` takes it all out again.

Both can be killed at any time.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ml_assets import services
from ml_assets.cli.refresh import Progress, Report, phase, refresh_graph
from ml_assets.contracts import STREAMS
from ml_assets.lib.words import counted
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.demo import Plan
    from ml_assets.demo.removal import Removed


def run_demo(settings: Settings, progress: Progress, plan: "Plan | None" = None) -> Report:
    """Start the services, train what the demo still lacks, and bring the graph up to date with it.

    Args:
        plan: what to train; everything if None.
    """
    from ml_assets.cli.instance import prepare_home
    from ml_assets.demo.manifest import Manifest
    from ml_assets.resources import store_resources

    prepare_home(settings)
    # Before the services: a call that is killed while they are set up is known for one that makes the demo.
    Manifest.folder(settings.home).mkdir(exist_ok=True)
    report = Report()
    with phase(report, "services"):
        start_services(settings, progress)
    with phase(report, "training"):
        from ml_assets.demo import make_demo

        make_demo(settings, progress, plan)
    with phase(report, "intake"):
        from ml_assets.demo.withdrawal import erase_former

        stores = store_resources(settings)
        erase_former(settings, stores["lake"], stores["postgres"])
    return refresh_graph(settings, progress, report)


def remove_demo(settings: Settings, progress: Progress) -> list[str]:
    """Take the demo out of every store; what is one's own stays.

    Returns:
        Sentences that tell what was removed, and what was not.

    Raises:
        Refusal: there is no home, or no demo in it.
    """
    from ml_assets.demo.removal import remove_input, remove_rest, require_demo
    from ml_assets.resources import store_resources

    settings.require_home()
    require_demo(settings)
    start_services(settings, progress)
    before = _rows(settings)
    stores = store_resources(settings)
    progress("input", 0, 1)
    removed = remove_input(settings, stores["lake"], stores["postgres"])
    progress("input", 1, 1)
    # Intake tells anew what it holds: its newest event is the one that people look at.
    refresh_graph(settings, progress, again=STREAMS)
    after = _rows(settings)
    remove_rest(settings, stores["postgres"])
    return _told(settings, removed, before, after)


def _rows(settings: Settings) -> dict[str, int]:
    """Rows of all tables, by store, of the stores that tell."""
    from ml_assets.maintenance.status import stores_status

    stores, _ = stores_status(settings)
    return {
        name: sum(table["rows"] for table in store["tables"].values())
        for name, store in stores.items()
        if store["tables"]
    }


def _told(settings: Settings, removed: "Removed", before: dict[str, int], after: dict[str, int]) -> list[str]:
    tracked = ", ".join(counted(count, thing) for thing, count in removed.tracked.items()) or "nothing"
    told = [f"Removed {counted(removed.files, 'landing file')}, and of MLflow {tracked}."]
    for store, rows in before.items():
        now = f"{after[store]:,} now" if store in after else "and it does not answer now"
        told.append(f"{store}: {counted(rows, 'row')} before, {now}.")
    told += [
        f"{settings.landing / name} was changed since the demo wrote it, so it stays with its rows."
        for name in removed.changed
    ]
    if unknown := removed.unknown:
        stay = "stays with its rows" if len(unknown) == 1 else "stay with their rows"
        told.append(
            f"{counted(len(unknown), 'landing file')} {stay}: the demo was made when it did not note yet what it wrote, "
            "so what lies there may have been changed since. Withdraw what was not with `ml-assets retire FILE`, "
            f"then delete it: {', '.join(unknown)}."
        )
    return told


def start_services(settings: Settings, progress: Progress) -> None:
    """Start the embedded servers that the settings leave to us, side by side."""
    names = [
        name for name in services.SERVERS if settings.mode(name) == "embedded" and services.available(name)
    ]
    progress("services", 0, len(names))
    with ThreadPoolExecutor(len(names) or 1) as pool:
        for done, _ in enumerate(pool.map(lambda name: services.ensure(name, settings.home), names), 1):
            progress("services", done, len(names))
