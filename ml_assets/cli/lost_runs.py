"""Runs that were killed, and of which nobody tells Dagster.

Dagster's code server marks a run as failed whose process dies. With both killed, as by the machine's end or `kill -9` of
`ml-assets up`, the run stays 'started', and the queue, which lets one run at a time, would wait for it for ever. A run
within `ml-assets refresh` has no code server: killed, it keeps its place in a pool, for which the next one would wait.
"""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

PROCESS = "ml_assets/process"
"""Tag of a run within `ml-assets refresh`: the machine and process that it is executed in."""

_WORDS = 5
"""Of a command line, which begins with an interpreter and its options."""


def this_process() -> str:
    """The machine, the number of this process and when it began, since numbers are given again."""
    import psutil

    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f}"


def end_killed_refreshes(instance: "DagsterInstance") -> list[str]:
    """Mark runs of killed `ml-assets refresh` as failed, and give back their places in pools. Sentences on what was done.

    Runs of other machines, and of processes that go on, are let be.
    """
    from dagster import DagsterRunStatus, RunsFilter

    ended = []
    for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED])):
        if (process := run.tags.get(PROCESS)) and _is_gone(process):
            instance.report_run_failed(run, "Its process was killed.")
            if instance.event_log_storage.supports_global_concurrency_limits:
                instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended.append(f"Run {run.run_id[:8]} of a refresh that was killed is marked as failed.")
    return ended


def _is_gone(process: str) -> bool:
    import psutil

    host, pid, began = process.split()
    if host != socket.gethostname():
        return False
    try:
        found = psutil.Process(int(pid))
        # A zombie works at nothing any more.
        return f"{found.create_time():.2f}" != began or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def fail_lost_runs(settings: Settings) -> list[str]:
    """Mark runs as failed that nobody works at; the daemon then makes them again. Sentences on what was done.

    Only for the one `up` of the home, before it starts a code server, and for a history that lies in the home: in one in
    PostgreSQL, runs may be those of other machines, whose processes nobody here can see. Runs of `dg launch`, which have
    no code server, are let be, and so are all while another code server or run has this home's history: then they end by
    the longest time of a run, as dagster.yaml says it. Those of `ml-assets refresh` name their process; see
    `end_killed_refreshes`.
    """
    from dagster import DagsterRunStatus, RunsFilter
    from dagster._core.storage.runs import SqliteRunStorage

    from ml_assets.cli.instance import open_instance

    with open_instance(settings) as instance:
        told = end_killed_refreshes(instance)
        if not isinstance(instance.run_storage, SqliteRunStorage):
            return told
        started = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED]))
        lost = [run for run in started if run.remote_job_origin is not None]
        if not lost:
            return told
        ids = ", ".join(run.run_id[:8] for run in lost)
        if process := _other_process(settings):
            return [
                *told,
                f"Not ended, and perhaps under way: {ids} of Dagster's runs. Process {process} of Dagster has this home "
                "too; if it does not work at them, end it and start anew.",
            ]
        for run in lost:
            instance.report_run_failed(run, "Its process was killed together with the code server.")
        return [
            *told,
            f"Killed in an earlier session, now marked as failed and made again: {ids} of Dagster's runs.",
        ]


def _other_process(settings: Settings) -> int | None:
    """A code server, daemon, UI or run with this home's history that is not ours."""
    import psutil

    home = settings.dagster_home.resolve()
    for process in psutil.process_iter():
        try:
            theirs = process.environ().get("DAGSTER_HOME") if process.pid != os.getpid() else None
            if (
                theirs
                and Path(theirs).resolve() == home
                and any(map(_of_dagster, process.cmdline()[:_WORDS]))
            ):
                return process.pid
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or somebody else's, who cannot open this home
    return None


def _of_dagster(word: str) -> bool:
    return Path(word).name.startswith(("dagster", "dg")) or "spawn_main" in word
