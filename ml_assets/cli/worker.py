"""`ml-assets worker`: a worker of Celery that executes steps of runs, until Ctrl-C."""

import os
from collections.abc import Sequence

from ml_assets.cli.instance import prepare_home
from ml_assets.executors import require_celery, require_shared_stores
from ml_assets.settings import Settings

QUEUES = ("home", "dagster", "clickhouse")
"""All that steps go to: those of the home's files, those of any machine, those that open ClickHouse."""


def work(settings: Settings, queues: Sequence[str], concurrency: int, name: str) -> int:
    """Execute steps until Ctrl-C or SIGTERM, which let the present ones end; the exit status.

    Args:
        settings: broker and stores.
        queues: from which steps are taken; all of them if none is named.
        concurrency: steps at a time, each in a process of its own.
        name: of this worker among those of the machine.

    Raises:
        Refusal: there is no broker, or this machine would write to stores of its own.
    """
    require_celery(settings)
    require_shared_stores(settings)
    # Steps look for Dagster's home in the environment; the instance itself comes with each of them.
    prepare_home(settings)
    os.environ.update(settings.child_environment())
    # The processes that execute steps are forked from this one, and share what it has imported.
    import ml_assets.build  # noqa: F401
    from ml_assets.executors.celery import worker_app

    app = worker_app(settings)
    options = [
        f"--queues={','.join(queues or QUEUES)}",
        f"--concurrency={concurrency}",
        f"--hostname={name}@%h",
        "--loglevel=INFO",
        # Workers need not know of each other; what is lost is found by those who wait for it.
        *("--without-gossip", "--without-mingle"),
    ]
    return app.worker_main(["worker", *options]) or 0
