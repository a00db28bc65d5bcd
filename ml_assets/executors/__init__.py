"""Where the steps of a run are executed: in its process, in processes beside it, or on other machines.

What belongs here: the executor that the settings ask for, and the Celery application that its workers run. What does
not: which queue a step goes to, which its asset says (defs/options.py).
"""

import dagster as dg

from ml_assets.errors import Refusal
from ml_assets.settings import Settings


def executor_of(settings: Settings) -> dg.ExecutorDefinition:
    """The executor of all jobs.

    Raises:
        Refusal: its package is not installed, or a store would be another one on each machine.
    """
    kind = settings.executor_kind
    if kind == "in_process":
        return dg.in_process_executor
    if kind == "multiprocess":
        return dg.multiprocess_executor
    require_shared_stores(settings)
    if kind == "celery":
        return _celery(settings)
    return _kubernetes()


def require_shared_stores(settings: Settings) -> None:
    """Refuse to spread steps over machines each of which would have a store of its own.

    Raises:
        Refusal: names the variables that are missing.
    """
    missing = [
        f"ML_ASSETS_{store.upper()}_URL"
        for store in ("postgres", "clickhouse", "chroma", "redis")
        if settings.mode(store) == "embedded"
    ]
    if settings.lake_data is None:
        missing.append("ML_ASSETS_LAKE_DATA")
    if (settings.qdrant_url or "").startswith("edge:"):
        missing.append("a server in ML_ASSETS_QDRANT_URL")
    if missing:
        raise Refusal(
            "Steps are to run on several machines, and each would have stores of its own: set "
            f"{', '.join(missing)} to what all of them reach, or leave ML_ASSETS_EXECUTOR unset."
        )


def _celery(settings: Settings) -> dg.ExecutorDefinition:
    require_celery(settings)
    from ml_assets.executors.celery import celery_steps

    return celery_steps(settings)


def require_celery(settings: Settings) -> None:
    """Refuse what Celery cannot run with.

    Raises:
        Refusal: dagster-celery is not installed, or there is no broker.
    """
    try:
        import dagster_celery  # noqa: F401 - is it there?
    except ImportError as fault:
        raise Refusal(
            f"Steps by Celery need dagster-celery, which cannot be used here ({fault}): run "
            "`pip install 'ml-assets[celery]'`, or leave ML_ASSETS_EXECUTOR unset."
        ) from fault
    if settings.celery_broker_url is None:
        raise Refusal(
            "Steps by Celery need a broker: set ML_ASSETS_CELERY_BROKER_URL, say to redis://:PASSWORD@HOST:6379/1."
        )
    if settings.celery_results_url is None:
        raise Refusal(
            "The broker in ML_ASSETS_CELERY_BROKER_URL keeps no results: set ML_ASSETS_CELERY_BACKEND_URL, say to "
            "redis://:PASSWORD@HOST:6379/2."
        )


def _kubernetes() -> dg.ExecutorDefinition:
    try:
        from dagster_k8s import k8s_job_executor  # pyright: ignore[reportMissingImports] - an extra
    except ImportError as fault:
        raise Refusal(
            f"Steps in Kubernetes need dagster-k8s, which cannot be used here ({fault}): run "
            "`pip install 'ml-assets[kubernetes]'`, or leave ML_ASSETS_EXECUTOR unset."
        ) from fault
    # Image, volumes and secrets come from the instance's K8sRunLauncher, and so stand in no run's configuration.
    return k8s_job_executor
