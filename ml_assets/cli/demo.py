"""`ml-assets demo`: start the services, train what is missing, refresh the graph. It can be killed at any time."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ml_assets import services
from ml_assets.cli.refresh import Progress, Report, phase, refresh_graph
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.demo import Plan


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
        from ml_assets.demo.withdrawal import retire_former

        stores = store_resources(settings)
        retire_former(settings, stores["lake"], stores["postgres"])
    return refresh_graph(settings, progress, report)


def start_services(settings: Settings, progress: Progress) -> None:
    """Start the embedded servers that the settings leave to us, side by side."""
    names = [
        name for name in services.SERVERS if settings.mode(name) == "embedded" and services.available(name)
    ]
    progress("services", 0, len(names))
    with ThreadPoolExecutor(len(names) or 1) as pool:
        for done, _ in enumerate(pool.map(lambda name: services.ensure(name, settings.home), names), 1):
            progress("services", done, len(names))
