"""What every command has: its sentence for a fault, its settings, the forms of its answer."""

import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from ml_assets.cli.faults import interrupted, require_home, sentence
from ml_assets.errors import Refusal
from ml_assets.settings import Settings, read_settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV and nothing else.")]
Form = Literal["table", "json", "csv"]
"""A table for people, a JSON array with an object a row, or CSV with a header."""


def command(
    function: Callable[..., None], group: typer.Typer, name: str | None = None
) -> Callable[..., None]:
    """A command whose faults are told as `told_in_words` does."""
    return group.command(name)(told_in_words(function))


def told_in_words(function: Callable[..., None]) -> Callable[..., None]:
    """One sentence and exit status 1 for what a person can mend; everything else keeps its traceback."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except (typer.Exit, SystemExit):  # rich ends so where nobody reads what it prints
            raise
        except BaseException as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(128 + signal.SIGPIPE) from None
            if interrupted(error):
                _fail("Stopped; the next run goes on where this one ended.", status=130)
            if (told := _told(error)) is None:
                raise
            _fail(told)

    return guarded


def _nobody_reads() -> bool:
    """Whether the output is a pipe that nobody reads any more, such as that of `| head`, and no server is at fault."""
    asked = select.poll()
    asked.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in asked.poll(0))


def _fail(message: str, status: int = 1) -> None:
    print(message, file=sys.stderr)
    raise typer.Exit(status)


def _told(error: BaseException) -> str | None:
    """The sentence for a fault, if there is one, without any password."""
    try:
        settings = Settings()
    except (ValidationError, SettingsError, Refusal):  # a fault of their own, which is being told
        return sentence(error, Path())
    told = sentence(error, settings.home)
    return settings.masked(told) if told else None


def settings_of_home(read: Sequence[str] = (), upgrade: bool = True) -> Settings:
    """The settings of a home in which something can be done.

    Args:
        read: stores that are asked for what is there, for which there has to be a home.
        upgrade: bring a home of a former release to this one's format, and refuse one of a newer release.
    """
    settings = read_settings()
    settings.publish()
    require_home(settings.home)
    if read:
        settings.require_home(*read)
    if upgrade:
        from ml_assets.maintenance.upgrade import open_home

        open_home(settings, _say_aside)
    return settings


def _say_aside(told: str) -> None:
    print(told, file=sys.stderr)


def form(as_json: bool, as_csv: bool) -> Form:
    """How an answer is printed.

    Raises:
        Refusal: as both.
    """
    if as_json and as_csv:
        raise Refusal("The answer is printed once: give either --json or --csv.")
    return "json" if as_json else "csv" if as_csv else "table"
