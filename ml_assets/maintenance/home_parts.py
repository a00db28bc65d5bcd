"""What grows in a home beside the stores: logs of servers, MLflow's traces, texts in quarantine.

What belongs here: each part as something that is kept small, by a setting that says for how long.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets import services
from ml_assets.contracts import STREAMS
from ml_assets.errors import IntakeBusy
from ml_assets.intake import quarantine
from ml_assets.lib.words import counted
from ml_assets.maintenance.history import DagsterHistory
from ml_assets.maintenance.leftovers import TemporaryFiles
from ml_assets.settings import Settings
from ml_assets.stores.files import folder_bytes
from ml_assets.stores.sqlite.maintenance import maintain as maintain_sqlite
from ml_assets.tables.store import Maintained, Retention

if TYPE_CHECKING:
    from dagster import DagsterInstance

_MB = 2**20
_BUSY_S = 20.0


def home_parts(
    settings: Settings, resources: Mapping[str, Any], instance: "DagsterInstance | None" = None
) -> list[Maintained]:
    """What is kept small beside the stores.

    Args:
        resources: as `resources.store_resources` gives them.
        instance: Dagster's; without one its history is measured only, so leave it out where nothing is to be done.
    """
    return [
        DagsterHistory(settings, instance),
        ServerLogs(settings),
        MLflowTraces(settings, resources["mlflow"]),
        TemporaryFiles(str(settings.home)),
    ]


class ServerLogs(Maintained):
    """Logs of the embedded servers and of `up`, whose own is rotated as it is written.

    Args:
        settings: of the home.
    """

    name: ClassVar[str] = "logs"

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._most = settings.server_log_mb * _MB

    def size(self) -> int:
        """Bytes of all logs."""
        logs = [file for log in self._logs() for file in (log, _former(log))]
        return folder_bytes(self._home / "logs") + sum(each.stat().st_size for each in logs if each.exists())

    def maintain(self, retention: Retention) -> Iterator[str]:
        """Put what is in a log too large beside it, in place of what was put there before.

        A server appends to the file that it has open, so the file is emptied, not replaced.
        """
        for log in self._logs():
            if not log.exists() or log.stat().st_size <= self._most:
                continue
            size = log.stat().st_size
            with log.open("rb") as told, _former(log).open("wb") as kept:
                _former(log).chmod(0o600)
                told.seek(max(0, size - self._most))
                shutil.copyfileobj(told, kept)
            with log.open("r+b") as told:
                told.truncate()
            yield f"Emptied {log.parent.name}'s log of {size / _MB:.0f} MB; its end is in {_former(log)}."

    def _logs(self) -> list[Path]:
        return [state.log for state in services.describe(self._home).values()]


def _former(log: Path) -> Path:
    return log.with_suffix(".log.old")


class MLflowTraces(Maintained):
    """Traces in MLflow, which are no part of the graph.

    Args:
        settings: how long they are kept.
        mlflow: the resource of the tracking store.
    """

    name: ClassVar[str] = "mlflow"

    def __init__(self, settings: Settings, mlflow: Any) -> None:
        self._days = settings.mlflow_trace_days
        self._folder = settings.home / "mlflow" if settings.mode("mlflow") == "embedded" else None
        self._mlflow = mlflow

    def size(self) -> int | None:
        """Bytes of the embedded store, runs and artifacts included; None of a server."""
        return None if self._folder is None else folder_bytes(self._folder)

    def maintain(self, retention: Retention) -> Iterator[str]:
        """Delete old traces, if a setting says for how long they are kept.

        Raises:
            StoreUnavailable: the tracking store does not answer.
        """
        if self._days is None or not self._mlflow.is_made:
            return
        before = datetime.now(UTC) - timedelta(days=self._days)
        client, token, gone = self._mlflow.client(), None, 0
        while True:
            page = client.search_experiments(page_token=token)
            for each in page:
                gone += client.delete_traces(
                    each.experiment_id, max_timestamp_millis=int(before.timestamp() * 1000)
                )
            token = page.token
            if not token:
                break
        if gone:
            yield f"Deleted {counted(gone, 'trace')} from before {before:%Y-%m-%d}."
        if gone and self._folder is not None:
            file = self._folder / "mlflow.db"
            with closing(sqlite3.connect(file, timeout=_BUSY_S, isolation_level=None)) as connection:
                yield from maintain_sqlite(connection)


class QuarantineTexts(Maintained):
    """The text of rows in quarantine: what was delivered, as it was delivered.

    Args:
        settings: how long it is kept.
        resources: as `resources.store_resources` gives them.
    """

    name: ClassVar[str] = "quarantine"

    def __init__(self, settings: Settings, resources: Mapping[str, Any]) -> None:
        self._days = settings.quarantine_text_days
        self._resources = resources

    def size(self) -> int | None:
        """None: it lies in the lake, and is measured there."""
        return None

    def maintain(self, retention: Retention) -> Iterator[str]:
        """Let old texts go, if a setting says so, and tell how many rows there are.

        Raises:
            StoreUnavailable: PostgreSQL or the lake does not answer.
        """
        lake, postgres = self._resources["lake"], self._resources["postgres"]
        for stream in STREAMS if self._days is not None else ():
            before = datetime.now(UTC) - timedelta(days=self._days or 0)
            try:
                gone = quarantine.forget_texts(lake, postgres, stream, before)
            except IntakeBusy as busy:  # the next night is early enough
                yield f"Left the quarantine of {stream} as it is: {busy}"
                continue
            if gone:
                yield f"Let the text of {counted(gone, 'quarantined row')} of {stream} go."
        if rows := sum(quarantine.counts(postgres).values()):
            yield f"{counted(rows, 'row')} of what counts at present {'is' if rows == 1 else 'are'} in quarantine."
