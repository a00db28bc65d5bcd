"""What fails with secrets in every URL leaves none of them: not on a screen, in a file, in the history, nor in `ps`."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

MARK = "S3CRET"
"""Every secret begins with it."""

GRAPH = """
import sys
import dagster as dg
from ml_assets.build import build_defs
from ml_assets.cli.instance import open_instance
from ml_assets.settings import Settings

settings = Settings()
defs = build_defs(settings)
job = defs.get_implicit_global_asset_job_def()
with open_instance(settings) as instance:
    for asset in sys.argv[1:]:
        done = job.execute_in_process(
            asset_selection=[dg.AssetKey(asset.split("/"))], instance=instance, raise_on_error=False
        )
        assert not done.success, asset
        print(*(entry.message for entry in instance.all_logs(done.run_id)), sep="\\n")
        print(instance.get_run_by_id(done.run_id).run_config)
"""


@pytest.fixture
def closed() -> Iterator[int]:
    """A port of this machine at which nobody answers: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def environment(home: Path, port: int) -> dict[str, str]:
    at = f"127.0.0.1:{port}"
    urls = {
        "POSTGRES": f"postgresql://ml:S3CRETpass@{at}/ml_dev?sslpassword=S3CRETparameter",
        "LAKE": f"postgresql://ml:S3CRET%2Fslash@{at}/lake",
        "CLICKHOUSE": f"clickhouse://ml:S3CRETpass@{at}/ml_metrics",
        "CHROMA": f"http://S3CRETtoken@{at}",
        "REDIS": f"redis://:S3CRETpass@{at}/0",
        "MLFLOW": f"http://S3CRETtoken@{at}",
        "OLLAMA": f"http://S3CRETtoken@{at}",
        "OPENLINEAGE": f"http://S3CRETtoken@{at}",
    }
    ours = {f"ML_ASSETS_{name}_URL": url for name, url in urls.items()}
    others = {"ML_ASSETS_OPENLINEAGE_API_KEY": "S3CRETkey", "ML_ASSETS_EMBEDDER": "ollama", "COLUMNS": "500"}
    return {**os.environ, **ours, **others, "ML_ASSETS_HOME": str(home)}


def run(command: list[str], given: dict[str, str]) -> tuple[str, set[str]]:
    """What a program prints, and the command lines of itself and of all that it starts, while it runs."""
    lines: set[str] = set()
    with subprocess.Popen(
        command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.02):
                try:
                    own = psutil.Process(program.pid)
                    for process in (own, *own.children(recursive=True)):
                        lines.add(" ".join(process.cmdline()))
                except psutil.Error:
                    continue  # it has just ended

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            said, _ = program.communicate(timeout=300)
        finally:
            ended.set()
            watcher.join()
    return said, lines


def left_in(home: Path) -> list[str]:
    """Files that hold a secret, as text or within a database."""
    files = [each for each in home.rglob("*") if each.is_file()]
    return [f"{each}: {where(each.read_bytes())}" for each in files if MARK.encode() in each.read_bytes()]


def where(content: bytes) -> bytes:
    at = content.index(MARK.encode())
    return content[max(0, at - 80) : at + 40]


def told(said: str) -> list[str]:
    return [line for line in said.splitlines() if MARK in line]


COMMANDS = (
    ["status"],
    ["status", "--json"],
    ["refresh"],
    ["sql", "duckdb", "SELECT 1"],
    ["sql", "clickhouse", "SELECT 1"],
    ["search", "word"],
)


def test_commands_that_fail_tell_no_secret(tmp_path, closed, cli):
    home = tmp_path / "home"
    (home / "landing" / "runs").mkdir(parents=True)
    (home / "landing" / "runs" / "a.jsonl").write_text('{"run_id": "a"}\n')
    given = environment(home, closed)
    given = {
        name: value for name, value in given.items() if name.startswith("ML_ASSETS_") or name == "COLUMNS"
    }
    for command in COMMANDS:
        done = cli(home, *command, **given)
        assert done.returncode == 1, command
        assert told(done.stdout + done.stderr) == [], command
    # In a password that is not encoded, too.
    given["ML_ASSETS_POSTGRES_URL"] = f"postgresql://ml:S3CRET/slash@127.0.0.1:{closed}/ml_dev"
    done = cli(home, "sql", "postgres", "SELECT 1", **given)
    assert done.returncode == 1 and told(done.stdout + done.stderr) == []
    assert left_in(home) == []


def test_a_failing_run_leaves_no_secret(tmp_path, closed):
    home = tmp_path / "home"
    (home / "landing" / "runs").mkdir(parents=True)
    (home / "landing" / "runs" / "a.jsonl").write_text('{"run_id": "a"}\n')
    assets = ("duckdb/intake_runs", "quality/maintenance")
    said, lines = run([sys.executable, "-c", GRAPH, *assets], environment(home, closed))
    assert "127.0.0.1" in said, said[-3000:]
    assert told(said) == []
    assert [line for line in lines if MARK in line] == []
    assert left_in(home) == []
    assert list((home / "dagster").rglob("*.db"))
