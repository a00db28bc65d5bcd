"""What the command line shows, as far as it needs no stack."""

import signal
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from ml_assets.cli.report import progress_bars


class Thing:
    pass


def collect(callback: Callable[[Any], object]) -> None:
    thing = Thing()
    called = weakref.ref(thing, callback)
    del thing
    assert called() is None


def test_ctrl_c_within_a_callback_of_the_garbage_collector_is_told_later(monkeypatch):
    printed: list[type] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda fault: printed.append(fault.exc_type))
    with pytest.raises(KeyboardInterrupt), progress_bars(quiet=True) as bars:
        collect(lambda _: signal.raise_signal(signal.SIGINT))
        collect(lambda _: 1 / 0)
        assert printed == [ZeroDivisionError]
        bars("phase", 0, 1)
