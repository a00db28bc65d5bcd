"""A real browser, and the real UI to point it at.

browse     opens pages of a UI; close to what a person sees on a large screen
serve_ui   starts Dagster's web server on a home and stops it after the test
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import httpx
import psutil
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from ml_assets.settings import PROJECT_ROOT, Settings

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS = 120.0
"""A code server imports a hundred MB of Python, on machines that do other things too."""

expect.set_options(timeout=60_000)


@pytest.fixture
def page() -> Iterator[Page]:
    """An empty page of a fresh browser; what a test waits for, it waits for up to a minute.

    Not shared between tests: Playwright keeps an event loop running in the thread, which Dagster's own
    would meet. Skips where no Chromium is installed, except in CI, which installs one.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium in CI: .ci/run installs it")
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=FLAGS) as browser,
    ):
        found = browser.new_page(viewport={"width": 1600, "height": 1200})
        found.set_default_timeout(60_000)
        yield found


ServeUI = Callable[[Mapping[str, str]], str]
"""Starts a UI with these variables in its environment and returns its URL."""


@pytest.fixture(scope="session")
def serve_ui() -> Iterator[ServeUI]:
    """Starts Dagster's web server; it is stopped with the session, and must leave no process behind."""
    with ExitStack() as running:
        yield lambda environment: running.enter_context(_web_server(environment))


@contextmanager
def _web_server(environment: Mapping[str, str]) -> Iterator[str]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A test run in the background of a shell: the server would inherit it and never stop.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    port = _free_port()
    command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
    command += ["-w", str(PROJECT_ROOT / "workspace.yaml")]
    with tempfile.TemporaryFile("w+") as log:
        server = psutil.Popen(
            command, cwd=PROJECT_ROOT, env=dict(environment), stdout=log, stderr=subprocess.STDOUT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _await_answer(server, url, log)
            yield url
        finally:
            family = [server, *server.children(recursive=True)]
            server.send_signal(signal.SIGINT)
            left = psutil.wait_procs(family, timeout=30)[1]
            for process in left:
                process.kill()
        assert [process.pid for process in left] == []


def _await_answer(server: psutil.Popen, url: str, log: TextIO) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            httpx.get(f"{url}/server_info", timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)  # between two questions; what counts is the answer
    log.seek(0)
    pytest.fail(f"the web server does not answer:\n{log.read()[-4000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def demo_ui(demo_home: Path, serve_ui: ServeUI) -> str:
    """URL of a UI on the demo."""
    return serve_ui(Settings(home=demo_home).child_environment())
