"""What all stores' resources have in common: health, faults, retry of connections, URLs.

What belongs here: nothing that knows a particular store. A resource connects, reports its health and has a
few named operations; how a table is written is the IO managers' business.

Retries: opening a connection is tried three times with exponential back-off and jitter. A statement is
never repeated, because nobody can tell whether it was done.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

import dagster as dg
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from ml_assets.errors import Refusal, StoreBusy, StoreUnavailable
from ml_assets.lib.current_run import run_id
from ml_assets.lib.faults import one_sentence
from ml_assets.settings import redact_url, without_passwords
from ml_assets.tables.store import StoreHealth

CONNECT_TIMEOUT_S = 5
"""How long one attempt to connect may take."""

CONNECT_TRIES = 3

HOME = "data"
"""Folder of the embedded stores where a resource names none, below the working directory."""

BUSY_TIMEOUT_S = 5.0
"""How long `health` waits for a store that another process holds."""


def for_reading_alone(store: str) -> Refusal:
    """The error for a write to a store that was opened for reading alone."""
    return Refusal(
        f"{store} was opened for reading alone, and this would write: connect without read_only, and unset "
        "ML_ASSETS_READ_ONLY."
    )


class RunLabel:
    """Makes known for which run a resource is used: what a store does for it shows the run's id in the store's log."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Dagster calls it when a run begins to use the resource."""
        run_id.set(context.run.run_id if context.run else None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Dagster calls it when the run is done with it."""
        run_id.set(None)


class StoreResource(RunLabel, dg.ConfigurableResource):
    """A resource of a store."""


def check_health(probe: Callable[[], StoreHealth]) -> StoreHealth:
    """Run a probe and add the time it took. Never raises: whatever goes wrong is a state."""
    start = time.perf_counter()
    try:
        health = probe()
    except StoreBusy as busy:
        health = StoreHealth("busy", detail=str(busy))
    except Exception as fault:  # noqa: BLE001 - a health check reports, whatever it is
        health = StoreHealth("down", detail=one_sentence(fault))
    return replace(health, latency_ms=round((time.perf_counter() - start) * 1000, 2))


def could_be_made(path: Path) -> bool:
    """Whether nothing lies at a path yet, in a folder in which this process may make something."""
    if path.exists():
        return False
    folder = next(parent for parent in path.parents if parent.exists())
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def unwritten(version: str = "") -> StoreHealth:
    """Health of a store that the first write makes. Asking does not make it."""
    return StoreHealth(
        "healthy", version, "nothing has been written yet: the first write makes it", unwritten=True
    )


def connecting(*faults: type[BaseException], if_message: str = "") -> Retrying:
    """Retry policy for opening a connection; the last fault is raised as it is.

    Args:
        faults: exceptions that mean 'the other side did not answer', and nothing else.
        if_message: any other exception is retried too if its message holds this text.
    """

    def is_passing(fault: BaseException) -> bool:
        return isinstance(fault, faults) or bool(if_message and if_message in str(fault))

    return Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_attempt(CONNECT_TRIES),
        wait=wait_exponential(multiplier=0.2, max=2.0) + wait_random(0, 0.2),
        reraise=True,
    )


def unavailable(store: str, url: str, fault: BaseException | str, remedy: str) -> StoreUnavailable:
    """The error to raise when a store does not answer, free of passwords.

    Args:
        store: the store's name as people know it, such as `PostgreSQL`.
        url: its URL; the password in it is taken out of the whole sentence.
        fault: what happened.
        remedy: what the reader can do, as an imperative.
    """
    cause = fault if isinstance(fault, str) else one_sentence(fault)
    sentence = f"{store} at {redact_url(url)} cannot be used ({cause.rstrip('.')}): {remedy}."
    return StoreUnavailable(without_password(sentence, url))


def without_password(text: str, url: str) -> str:
    """Text with the URL's passwords masked, for messages that a driver made."""
    return without_passwords(text, [url])


def require_scheme(store: str, url: str, schemes: tuple[str, ...], variable: str) -> str:
    """The URL, if it can be read and begins with one of the schemes.

    Raises:
        StoreUnavailable: it does not; the sentence names the variable to correct.
    """
    allowed = " or ".join(f"{scheme}://" for scheme in schemes)
    remedy = f"set {variable} to a URL that begins with {allowed}"
    parts = _readable(url)
    if parts is None:
        # Not urllib's own words, which quote what may be a part of the password.
        raise StoreUnavailable(
            f"{store} cannot be reached, {redact_url(url)!r} is not a URL: {remedy}; in a password, / ? # @ [ ] "
            "are written as %2F %3F %23 %40 %5B %5D."
        )
    if parts.scheme not in schemes:
        raise StoreUnavailable(f"{store} cannot be reached at {redact_url(url)!r}: {remedy}.")
    return url


def _readable(url: str) -> SplitResult | None:
    """The parts of a URL, None if they cannot be told apart for sure."""
    try:
        parts = urlsplit(url)
        # PostgreSQL lawfully lists several hosts; everywhere else a strange port is a slip.
        _ = parts.port if "," not in parts.netloc else None
    except ValueError:
        return None
    after = url.partition(parts.netloc)[2] if parts.netloc else ""
    # What stands there as a port, and is shown as one, may be the beginning of a password.
    doubtful = parts.netloc.count("@") > 1 or (":" in parts.netloc and "@" in after)
    return None if doubtful else parts


def plain(url: str) -> str:
    """The URL itself, if the configuration holds an `EnvVar` that names its variable.

    Dagster resolves those for runs; scripts and the command line use the resources without Dagster.
    """
    return (url.get_value() or "") if isinstance(url, dg.EnvVar) else url


def with_database(url: str, database: str) -> str:
    """The same server, another database."""
    parts = urlsplit(url)
    # Not urlunsplit: it drops the slashes of postgresql:///name?host=/folder, which has no netloc.
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{quote(database, safe='')}{query}"


def or_database(url: str, database: str) -> str:
    """The URL, of this database if it names none: libpq would take one that is called like the user."""
    named = url.split("?", 1)[0].split("://", 1)[1].partition("/")[2]
    return url if named else with_database(url, database)


def embedded_url(service: str, home: str | Path) -> str:
    """URL of an embedded server under `home`, started if it does not run.

    Raises:
        StoreUnavailable: it cannot be started; the sentence says why.
    """
    from ml_assets import services

    try:
        return services.ensure(service, Path(home))
    except services.ServiceError as fault:
        raise StoreUnavailable(str(fault)) from fault
