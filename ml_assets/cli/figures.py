"""`ml-assets status --prometheus` and `metrics-server`: figures for Prometheus, as text, a file or over HTTP."""

import sys
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest, start_http_server, write_to_textfile
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ml_assets.errors import Refusal
from ml_assets.lib.figures import Figures, History, families
from ml_assets.maintenance.figures import collect
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from dagster import AssetCheckKey, DagsterRunStatus, RunsFilter

_DAY = timedelta(days=1)
_RETRY = "dagster/retry_number"
"""Tag of a run that Dagster has started in place of a lost one."""

_MOST_RETRIES = 100
"""Tries of one run that are counted."""


class Source(Collector):
    """Collects figures when it is asked, by one caller at a time.

    Args:
        settings: which home.
        every: seconds for which the same figures are told again, so that no number of callers keeps the stores busy.
    """

    def __init__(self, settings: Settings, every: float = 0.0) -> None:
        self._settings = settings
        self._every = every
        self._lock = threading.Lock()
        self._told: list[Metric] = []
        self._asked_at: float | None = None

    @property
    def registry(self) -> CollectorRegistry:
        """A registry of nothing but this, which does not ask until it is asked."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering asks no store."""
        return []

    def figures(self) -> Figures:
        """The figures of now."""
        return collect(self._settings, self._history, lambda sentence: print(sentence, file=sys.stderr))

    def collect(self) -> Iterable[Metric]:
        """The families of metrics."""
        with self._lock:
            now = time.monotonic()
            if self._asked_at is None or now - self._asked_at >= self._every:
                self._told = list(families(self.figures()))
                self._asked_at = time.monotonic()
            return self._told

    def _history(self) -> History | None:
        """What Dagster's history tells; None where there is none yet, since asking would make it."""
        from dagster import DagsterRunStatus

        from ml_assets.cli.instance import open_instance
        from ml_assets.cli.lineage import failed_checks

        if not self._settings.dagster_home.exists():
            return None
        with open_instance(self._settings) as instance:
            since = datetime.now(UTC) - _DAY
            # Counted by the storage: a day of backfills may have tens of thousands of them.
            counts = {
                each.value.lower(): instance.get_runs_count(_runs(each, since)) for each in DagsterRunStatus
            }
            tries = {_RETRY: [str(number) for number in range(1, _MOST_RETRIES + 1)]}
            retried = sum(instance.get_runs_count(_runs(each, since, tries)) for each in DagsterRunStatus)
            failed = failed_checks(instance, self._checks)
        return History(len(self._checks), failed, counts, retried)

    @cached_property
    def _checks(self) -> "list[AssetCheckKey]":
        from ml_assets.build import build_defs

        return list(build_defs(self._settings).resolve_asset_graph().asset_check_keys)


def _runs(
    status: "DagsterRunStatus", since: datetime, tags: Mapping[str, list[str]] | None = None
) -> "RunsFilter":
    """Runs of a status that have these tags: of those that have ended, the ones that did so since then."""
    from dagster import RunsFilter
    from dagster._core.storage.dagster_run import FINISHED_STATUSES

    return RunsFilter(
        statuses=[status], tags=tags, updated_after=since if status in FINISHED_STATUSES else None
    )


def tell(settings: Settings, output: Path | None) -> None:
    """Print the figures of now, or write them to a file, whole or not at all.

    Raises:
        Refusal: the file does not end in .prom, as the textfile collector wants it, or its folder is not there.
    """
    registry = Source(settings).registry
    if output is None:
        print(generate_latest(registry).decode(), end="")
        return
    if output.suffix != ".prom":
        raise Refusal(f"{output} is not read by node_exporter: name a file that ends in .prom.")
    if not output.parent.is_dir():
        raise Refusal(
            f"There is no folder {output.parent} to write {output.name} to: make it, or name another path."
        )
    write_to_textfile(str(output), registry)


def serve(settings: Settings, port: int, every: float, host: str = "127.0.0.1") -> None:
    """Answer Prometheus until Ctrl-C.

    Raises:
        Refusal: the port is taken.
    """
    try:
        server, thread = start_http_server(port, host, Source(settings, every).registry)
    except OSError as fault:
        raise Refusal(
            f"Port {port} of {host} cannot be had ({fault.strerror}): give another one by --port."
        ) from fault
    print(f"http://{host}:{server.server_port}/metrics", flush=True)
    try:
        thread.join()
    finally:
        server.shutdown()
        server.server_close()
