"""What `ml-assets status --prometheus` tells, gathered: each part by itself, so that one that fails hides no other.

Asking has no side effects, as with `status`: no server is started and nothing is made. While another process has embedded
ClickHouse open it is `busy`, and its figures are left out.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TypeVar

from ml_assets import services
from ml_assets.intake.due import waiting
from ml_assets.lib.faults import one_sentence
from ml_assets.lib.figures import Figures, History
from ml_assets.maintenance.disk import disk_use
from ml_assets.maintenance.status import quarantined_rows, status_json, stores_status
from ml_assets.resources import store_resources
from ml_assets.resources.base import BUSY_TIMEOUT_S
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql

T = TypeVar("T")


class _Parts:
    """Asks one part after the other, and keeps what each of them took."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self._say = say

    def ask(self, part: str, asked: Callable[[], T]) -> T | None:
        """What a part answers, None if it cannot; then `say` is told why."""
        start = time.perf_counter()
        try:
            return asked()
        except Exception as fault:  # noqa: BLE001 - as a health check: the other parts are told all the same
            self.failed.add(part)
            self._say(f"The figures of {part} are left out: {one_sentence(fault)}")
            return None
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def left_out(self, part: str, sentence: str) -> None:
        """Tell that some of a part could not be asked."""
        self.failed.add(part)
        self._say(sentence)


def collect(settings: Settings, history: Callable[[], History | None], say: Callable[[str], None]) -> Figures:
    """All figures of one moment. A part that cannot be asked is left out, and never an error of the whole.

    Args:
        settings: which stores.
        history: asks the history of runs; None if there is none.
        say: is given a sentence for each part that is left out, without passwords.
    """
    parts = _Parts(lambda sentence: say(settings.masked(sentence)))
    told = parts.ask("stores", lambda: stores_status(settings)[0]) or {}
    quarantined = parts.ask("quarantine", lambda: quarantined_rows(settings, told)) if told else None
    asks = told.get("postgres", {}).get("state") == "healthy"
    resources = store_resources(settings.model_copy(update={"lock_timeout_s": BUSY_TIMEOUT_S}))
    with services.only_running():
        alerts = parts.ask("alerts", lambda: _alerts(resources["postgres"])) if asks else None
        lag = parts.ask("intake", lambda: waiting(settings, resources["postgres"])) if asks else None
    left_out: list[str] = []
    disk = parts.ask("disk", lambda: disk_use(settings, told, left_out.append)) or {}
    for sentence in left_out:
        parts.left_out("disk", sentence)
    return Figures(
        version("ml-assets"),
        status_json(settings, told, quarantined, None),
        disk,
        parts.ask("disk", lambda: shutil.disk_usage(settings.home).free),
        lag,
        alerts,
        parts.ask("history", history),
        parts.seconds,
        frozenset(parts.failed),
        time.time(),
    )


def _alerts(postgres: Any) -> dict[tuple[str, str, str], int]:
    """How many are not over, by source, state and severity; nobody's book is made for that."""
    with postgres.connect() as connection:
        if connection.execute("SELECT to_regclass('ml_alert_messages')").fetchone() == (None,):
            return {}
        rows = connection.execute(read_sql("postgres/alerts/count.sql"), {"now": datetime.now(UTC)})
        return Counter(
            {(source, state, severity): count for source, state, severity, count in rows.fetchall()}
        )
