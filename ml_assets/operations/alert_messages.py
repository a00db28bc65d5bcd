"""Messages: each alert is told once to every URL of ML_ASSETS_ALERT_URLS, through apprise.

What belongs here: what is to be told to whom, sending it, and noting in PostgreSQL what was taken. A message that was
taken is noted before the next one is sent, so that only a kill between the two would have it sent twice. No URL is
logged or told: they are named by their place and the word before the colon.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tenacity import (
    RetryError,
    Retrying,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
)

from ml_assets.lib.alerts import message
from ml_assets.lib.words import counted
from ml_assets.operations.performance_alerts import ensure_schema
from ml_assets.settings import without_alert_urls
from ml_assets.sql_files import read_sql
from ml_assets.stores.touched_days import LOCK_SPACE

if TYPE_CHECKING:
    from ml_assets.resources.postgres import PostgresResource

TRIES = 3
"""How often a message is sent in one go, until it is taken."""

LONGEST_S = 6.0
"""After which nothing is tried again in the same go; one try of its own takes up to 8 s, where nobody answers."""

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)
"""Between the goes at a URL that takes nothing; each waits twice as long as the one before."""

_LOCK = 23
"""Advisory lock of whoever sends: two who send at once would send twice."""

_MOST = 8
"""URLs that are sent to at once."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)

_TALKATIVE = ("apprise", "urllib3", "requests", "httpx")
"""Loggers that name URLs, whose paths are secrets of Slack, Discord and the like."""


@dataclass
class Told:
    """What became of the messages.

    Args:
        sent: alerts that were told, in all messages.
        failures: a sentence for each URL that took nothing.
        waiting: by hash, URLs that took nothing: how often in a row, and when they are tried again.
    """

    sent: int = 0
    failures: list[str] = field(default_factory=list)
    waiting: dict[str, tuple[int, str]] = field(default_factory=dict)


def url_hash(url: str) -> str:
    """By what a URL is known in the book."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def tell(
    postgres: "PostgresResource",
    urls: Sequence[str],
    now: datetime,
    waiting: Mapping[str, tuple[int, str]] | None = None,
) -> Told:
    """Send to each URL the alerts that it was not told of; it takes some seconds at most.

    Args:
        now: aware.
        waiting: as the last call told it.

    Raises:
        StoreUnavailable: PostgreSQL does not answer; nothing was sent then.
    """
    from psycopg.rows import dict_row

    told = Told()
    waiting = waiting or {}
    ensure_schema(postgres)
    with postgres.connect(write=True) as connection:
        locked = connection.execute(
            "SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCK_SPACE, _LOCK)
        ).fetchone()
        if not (locked and locked[0]):
            told.waiting = dict(waiting)
            return told  # somebody else is sending the same
        due: dict[str, tuple[str, list[dict[str, Any]]]] = {}
        for n, url in enumerate(urls, 1):
            known_as = url_hash(url)
            failed = waiting.get(known_as)
            if failed and datetime.fromisoformat(failed[1]) > now:
                told.waiting[known_as] = (failed[0], failed[1])
                continue
            with connection.cursor(row_factory=dict_row) as cursor:
                asked = {"url_hash": known_as, "now": now}
                rows = cursor.execute(read_sql("postgres/alerts/pending.sql"), asked).fetchall()
            if rows:
                due[url] = (f"The {_place(n)} URL of ML_ASSETS_ALERT_URLS ({_scheme(url)})", rows)
        if not due:
            return told
        with ThreadPoolExecutor(_MOST) as pool:
            answers = {
                url: pool.submit(send, url, *message(rows), _worst(rows)) for url, (_, rows) in due.items()
            }
            for url, (name, rows) in due.items():
                if (fault := answers[url].result()) is None:
                    _note(postgres, url_hash(url), rows, now)
                    told.sent += len(rows)
                    continue
                failures = waiting.get(url_hash(url), (0, ""))[0] + 1
                wait = min(FIRST_WAIT * 2 ** min(failures - 1, 10), LONGEST_WAIT)
                told.waiting[url_hash(url)] = (failures, (now + wait).isoformat())
                told.failures.append(
                    f"{name} did not take {counted(len(rows), 'alert')} ({fault}); next try in "
                    f"{wait.total_seconds():.0f} s."
                )
    return told


def send(url: str, title: str, body: str, kind: str = "warning") -> str | None:
    """Send a message to a URL of apprise, up to `TRIES` times.

    Args:
        url: such as `json://host/path` or `mailto://user:password@host`.
        kind: `failure`, `warning` or `success`, which some services show in colours.

    Returns:
        None if it was taken, or why it was not, without the URL.
    """
    trying = Retrying(
        retry=retry_if_result(lambda taken: not taken),
        stop=stop_after_attempt(TRIES) | stop_after_delay(LONGEST_S),
        wait=wait_exponential(multiplier=0.3, max=2.0),
    )
    with _unlogged() as reasons:
        if _service(url) is None:
            return "it is none that apprise knows; https://github.com/caronc/apprise/wiki lists them"
        try:
            trying(_notify, url, title, body, kind)
        except RetryError:
            reason = reasons.of_this_thread() or "it does not say why"
            return without_alert_urls(reason, [url]).strip().rstrip(".")
    return None


def _notify(url: str, title: str, body: str, kind: str) -> bool:
    import apprise

    # Anew for each try: one that was used waits for seconds before it sends again.
    service = _service(url)
    return service is not None and bool(
        service.notify(body=body, title=title, notify_type=apprise.NotifyType(kind), body_format="text")
    )


def _service(url: str) -> Any:
    import apprise

    # Nothing is kept on disk, and what a URL holds is never shown.
    asset = apprise.AppriseAsset(
        app_id="ml-assets", app_desc="ml-assets", storage_mode=apprise.PersistentStoreMode.MEMORY
    )
    return apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)


def check_urls(urls: Sequence[str]) -> list[str]:
    """What is wrong with URLs, a sentence each; nobody is called."""
    with _unlogged():
        return [
            f"The {_place(n)} URL of ML_ASSETS_ALERT_URLS ({_scheme(url)}) is none that apprise knows: "
            "https://github.com/caronc/apprise/wiki lists them."
            for n, url in enumerate(urls, 1)
            if _service(url) is None
        ]


class _Reasons(logging.Handler):
    """Keeps the last warning of each thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._by_thread: dict[int | None, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is said."""
        self._by_thread[record.thread] = record.getMessage()

    def of_this_thread(self) -> str:
        """What was said last; "" if nothing was."""
        return self._by_thread.get(threading.get_ident(), "")


_reasons = _Reasons()
_quiet = threading.Lock()
_inside = 0
_before: list[tuple[logging.Logger, bool, list[logging.Handler], bool]] = []


@contextmanager
def _unlogged() -> Iterator[_Reasons]:
    """Keep quiet those who would log a URL, at any level, in all threads; apprise's warnings are kept."""
    global _inside  # noqa: PLW0603 - loggers are the process's
    with _quiet:
        if not _inside:
            _hush()
        _inside += 1
    try:
        yield _reasons
    finally:
        with _quiet:
            _inside -= 1
            if not _inside:
                while _before:
                    logger, logger.disabled, logger.handlers, logger.propagate = _before.pop()


def _hush() -> None:
    named = [
        *_TALKATIVE,
        *(name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKATIVE),
    ]
    for name in dict.fromkeys(named):
        logger = logging.getLogger(name)
        _before.append((logger, logger.disabled, logger.handlers, logger.propagate))
        logger.disabled = name != "apprise"
        logger.handlers, logger.propagate = ([_reasons] if name == "apprise" else []), False


def _note(
    postgres: "PostgresResource", known_as: str, rows: Sequence[Mapping[str, Any]], now: datetime
) -> None:
    values = {
        "url_hash": known_as,
        "now": now,
        "alert_ids": [row["alert_id"] for row in rows],
        "events": [row["event"] for row in rows],
    }
    with postgres.connect(write=True) as connection:
        connection.execute(read_sql("postgres/alerts/told.sql"), values)


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    opened = {row["severity"] for row in rows if row["event"] == "open"}
    return "failure" if "error" in opened else "warning" if opened else "success"


def _scheme(url: str) -> str:
    """The word before the colon; of what is no URL nothing, for it may be a key as a whole."""
    found = _SCHEME.match(url)
    return f"{found[1]}://***" if found else "***"


def _place(n: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(n, f"{n}th")
