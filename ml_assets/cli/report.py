"""What the command line shows: progress bars, tables, the summary of a demo."""

import math
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from ml_assets.cli.refresh import Progress as Told
from ml_assets.cli.refresh import Report
from ml_assets.home import is_home
from ml_assets.lib.words import counted
from ml_assets.maintenance.slow_statements import SlowStatements
from ml_assets.settings import Settings
from ml_assets.tables.store import Recovery

_SHOWN = 10
"""Files left alone that are shown, at most."""

_STATEMENT = 200
"""Characters of a statement that are shown, at most."""

STATE_STYLE = {"healthy": "green", "busy": "yellow", "down": "bold red"}


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Told]:
    """A bar for each phase that reports; on stderr, so that stdout can be piped, and only on a terminal.

    Raises:
        KeyboardInterrupt: at the next report after Ctrl-C, if some library's handler has swallowed it.
    """
    with _ctrl_c() as pressed, _bars(quiet) as bars:

        def told(phase: str, done: int, total: int) -> None:
            if pressed():
                raise KeyboardInterrupt
            bars(phase, done, total)

        yield told


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Asks whether Ctrl-C was pressed. The system tells, whatever handlers Dagster puts in the place of ours."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def pressed() -> bool:
            try:
                return signal.SIGINT in reader.recv(4096)
            except BlockingIOError:
                return False

        printed = sys.unraisablehook

        def unraisable(fault: "sys.UnraisableHookArgs") -> None:
            # Ctrl-C within a callback of the garbage collector, which can only print it. It is told by `pressed`.
            if not issubclass(fault.exc_type, KeyboardInterrupt):
                printed(fault)

        sys.unraisablehook = unraisable
        try:
            yield pressed
        finally:
            sys.unraisablehook = printed
            signal.set_wakeup_fd(before)


@contextmanager
def _bars(quiet: bool) -> Iterator[Told]:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda phase, done, total: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description:<24}"), BarColumn())
    with Progress(*columns, MofNCompleteColumn(), TimeElapsedColumn(), console=console) as bars:
        tasks: dict[str, Any] = {}

        def told(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total or None)
            bars.update(tasks[phase], completed=done, total=total or None)

        yield told


def print_refresh(report: Report) -> None:
    """Rows in by stream, days, runs, seconds."""
    console = Console()
    table = Table("stream", "read", "loaded", "superseded", "quarantined", title="Taken in")
    for column in table.columns[1:]:
        column.justify = "right"
    for stream, counts in report.streams.items():
        names = ("read", "loaded", "superseded", "quarantined")
        table.add_row(stream, *(f"{counts[name]:,}" for name in names))
    console.print(table)
    days = f"{counted(len(report.days), 'day')} rebuilt" if report.days else "no day touched"
    console.print(f"{days}, {counted(len(report.runs), 'run')}, {report.seconds:.1f} s")
    if report.left_alone:
        console.print(f"{counted(len(report.left_alone), 'file')} left alone:")
    for path, why in islice(report.left_alone.items(), _SHOWN):
        console.print(Text(f"  {path}: {why}"))
    if len(report.left_alone) > _SHOWN:
        console.print("  ... `ml-assets refresh --json` names all")
    for sentence in report.recovered:
        console.print(Text(f"{sentence[0].upper()}{sentence[1:]}"))


def print_status(
    settings: Settings, stores: dict[str, Any], quarantined: dict[str, int] | None, disk: dict[str, int]
) -> None:
    """The home, the health of the stores, then their tables and bytes, then what is in quarantine.

    Args:
        settings: which home.
        stores: as `stores_status` tells it.
        quarantined: rows by stream; None if that is not known.
        disk: bytes by part, as `disk_use` tells them.
    """
    console = Console()
    nothing = "" if is_home(settings.home) else " (nothing is kept there yet)"
    console.print(f"Home: {settings.home}{nothing}", soft_wrap=True, markup=False, highlight=False)
    health = Table("store", "mode", "state", "version", "ms", "where", title="Stores")
    for name, store in stores.items():
        state = f"[{STATE_STYLE[store['state']]}]{store['state']}[/]"
        where = " ".join(part for part in (store["url"], store["detail"]) if part)
        health.add_row(name, store["mode"], state, store["version"], f"{store['latency_ms']:.0f}", where)
    console.print(health)
    tables = Table("store", "table", "rows", "content hash", title="Tables")
    tables.columns[2].justify = "right"
    for name, store in stores.items():
        for table, content in store["tables"].items():
            tables.add_row(name, table, f"{content['rows']:,}", content["content_hash"])
    console.print(tables)
    if disk:
        used = Table("part", "bytes", "", title="On disk (Redis: in memory)")
        used.columns[1].justify = used.columns[2].justify = "right"
        for name, size in disk.items():
            used.add_row(name, f"{size:,}", byte_size(size))
        console.print(used)
    if extensions := stores["postgres"].get("extensions"):
        console.print(f"PostgreSQL extensions: {', '.join(extensions)}")
    if quarantined:
        told = ", ".join(f"{name} {rows:,}" for name, rows in quarantined.items())
        console.print(f"Rows in quarantine: {told}; `ml-assets quarantine list` tells why.", style="yellow")
    elif quarantined is not None:
        console.print("Nothing is in quarantine.")


def byte_size(count: int | None) -> str:
    """Bytes as people read them, such as 12.3 MB; "" if they are not known."""
    if count is None:
        return ""
    unit = min(max(int(math.log(max(count, 1), 1000)), 0), 4)
    return f"{count} B" if unit == 0 else f"{count / 1000**unit:,.1f} {('', 'kB', 'MB', 'GB', 'TB')[unit]}"


def print_slow_statements(slow: SlowStatements) -> None:
    """The statements that took PostgreSQL the most time, or why they are not known."""
    console = Console()
    if slow.statements is None:
        console.print(slow.detail, style="yellow", markup=False, highlight=False)
        return
    table = Table(
        "calls", "total ms", "mean ms", "max ms", "rows", "database", "statement", title="Slow statements"
    )
    for column in table.columns[:5]:
        column.justify = "right"
    for each in slow.statements:
        times = (f"{each[name]:,.1f}" for name in ("total_ms", "mean_ms", "max_ms"))
        told = each["statement"]
        shown = told if len(told) <= _STATEMENT else f"{told[: _STATEMENT - 3]}..."
        table.add_row(f"{each['calls']:,}", *times, f"{each['rows']:,}", Text(each["database"]), Text(shown))
    console.print(table)


def print_recovery(found: list[Recovery]) -> None:
    """What was finished or undone in each store."""
    style = {"clean": "green", "recovered": "yellow", "failed": "bold red", "down": "bold red"}
    table = Table("store", "state", "what", title="Interrupted writes")
    for each in found:
        what = Text(" ".join([each.detail, *each.dealt_with]))
        table.add_row(each.store, f"[{style[each.state]}]{each.state}[/]", what)
    Console().print(table)


def print_summary(settings: Settings, report: Report) -> None:
    """Rows per store, best models, seconds per phase, where to look."""
    from ml_assets.maintenance.status import stores_status

    console = Console()
    stores, _ = stores_status(settings)
    rows = Table("store", "tables", "rows", title="Rows per store")
    for column in rows.columns[1:]:
        column.justify = "right"
    for name, store in stores.items():
        if store["tables"]:
            total = sum(content["rows"] for content in store["tables"].values())
            rows.add_row(name, str(len(store["tables"])), f"{total:,}")
    console.print(rows)
    if stores["postgres"]["tables"].get("ml_experiments", {}).get("rows"):
        console.print(_best_models(settings))
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.phases.items())
    console.print(f"Seconds: {phases}; {report.seconds:.1f} s in all.")
    console.print(
        f"Everything lies in {settings.home}. `make up` shows it at http://{settings.host}:{settings.port}; "
        "`ml-assets status` lists the stores."
    )


def _best_models(settings: Settings) -> Table:
    from ml_assets.stack import Stack

    shown = Table("dataset", "runs", "best model", "metric", "value", title="Best models")
    for column in (shown.columns[1], shown.columns[4]):
        column.justify = "right"
    for best in Stack(settings).experiments.best_models().to_pylist():
        value = f"{best['value']:.4f}" if math.isfinite(best["value"]) else ""
        shown.add_row(best["dataset"], f"{best['runs']:,}", best["model_name"], best["metric"], value)
    return shown
