"""Homes of former formats open, are upgraded and hold what they held; those of newer ones are refused.

In fixtures/ there is a backup of a home of each format, `home-<number>.tar.xz`: of format 0 one that the last release
without a number has made, and of this format one of this release; kept_home.py made what they hold. What needs no store
is tested in unit/test_home_format.py.
"""

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import ml_assets
from ml_assets import services
from ml_assets.errors import Refusal
from ml_assets.lib.home_format import FORMAT
from ml_assets.maintenance.backup import BackupFolder, restore
from ml_assets.maintenance.upgrade import STEPS
from ml_assets.services.home import read_format
from ml_assets.settings import Settings
from ml_assets_tests.kept_home import DOCUMENTS, EVENTS, land

pytestmark = pytest.mark.timeout(1800)

FIXTURES = Path(__file__).parents[1] / "fixtures"


NEW = {
    "performance/later.jsonl": [{**EVENTS[0], "event_id": "later", "timestamp": "2026-03-04T11:00:00Z"}],
    "documents/ducks.jsonl": [
        {**DOCUMENTS[0], "document_id": "d3", "title": "Ducks", "text": "A duck quacks."}
    ],
}


def quiet(*_: object) -> None:
    """Progress that nobody sees."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="mla-up-"))
    yield made
    for home in made.iterdir():
        services.stop_all(home)
    shutil.rmtree(made)


def backups_of(number: int, folder: Path) -> BackupFolder:
    """The backup of a home of this format, unpacked."""
    with tarfile.open(FIXTURES / f"home-{number}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return BackupFolder(folder / f"home-{number}")


def test_there_is_a_home_of_every_format():
    kept = sorted(file.name for file in FIXTURES.glob("home-*.tar.xz"))
    assert kept == [f"home-{number}.tar.xz" for number in range(FORMAT + 1)]
    assert sum((FIXTURES / name).stat().st_size for name in kept) < 3_000_000


@pytest.mark.parametrize("number", range(FORMAT + 1))
def test_a_home_of_each_format_opens_and_holds_what_it_held(folder: Path, number: int):
    settings = Settings(home=folder / "home")
    # Which compares rows and content hashes of every table with those that the former release has noted.
    restored = restore(settings, backups_of(number, folder), quiet)
    assert restored.manifest.home_format == number
    assert restored.tables >= 40
    told = read_format(settings.home)
    assert told.number == FORMAT
    assert [step.number for step in told.steps] == [step.number for step in STEPS if step.number > number]
    _holds_what_was_put_in(settings)


def _holds_what_was_put_in(settings: Settings, later: int = 0) -> None:
    """In each kind of store, and in what lies beside them."""
    stack = ml_assets.connect(settings=settings)
    (pin,) = stack.features.pins().to_pylist()
    assert pin["name"] == "paper"
    then = stack.features.pinned("paper", "run_features").read_all()
    ids = then["run_id"].to_pylist()
    assert len(ids) == 4  # with the run of the light registry and that of MLflow; r3 came after the pin
    assert {"r1", "r2"} <= set(ids)
    runs = stack.sql("postgres", "SELECT id FROM ml_experiments WHERE model_name = 'cats' ORDER BY id")
    assert runs["id"].to_pylist() == ["r1", "r2", "r3"]
    requests = stack.sql(
        "clickhouse", "SELECT sum(request_count) AS requests FROM ml_metrics.performance_hourly"
    )
    assert requests.to_pylist() == [{"requests": len(EVENTS) + later}]
    found = stack.search.documents("which animal purrs")
    assert found[0]["document_id"] == "d1"
    light = ml_assets.connect(settings=settings, light=True)
    (run,) = light.experiments.list()
    assert run["model_name"] == "mice"
    assert light.artifacts.read(run["run_id"], "model.txt") == b"squeak"


def test_a_home_of_before_formats_goes_on(folder: Path, cli):
    """What the last release left is brought up to date by a refresh, and takes in what is new."""
    settings = Settings(home=folder / "home")
    restore(settings, backups_of(0, folder), quiet)
    land(settings.home, NEW)
    told = cli(settings.home, "refresh", "--json")
    assert told.returncode == 0, told.stderr
    streams = json.loads(told.stdout)["streams"]
    assert {name: counts["loaded"] for name, counts in streams.items()} == {
        **dict.fromkeys(streams, 0),
        **{file.split("/")[0]: len(rows) for file, rows in NEW.items()},
    }
    verified = cli(settings.home, "status", "--json", "--verify")
    assert verified.returncode == 0, verified.stdout
    stack = ml_assets.connect(settings=settings)
    assert stack.search.documents("it quacks")[0]["document_id"] == "d3"
    _holds_what_was_put_in(settings, later=1)


def test_a_backup_of_a_newer_home_is_refused_before_anything_is_written(folder: Path):
    backups = backups_of(FORMAT, folder)
    (backup_id,) = backups.ids()
    versions = {"ml-assets": "9.9"}
    newer = backups.publish(replace(backups.read(backup_id), home_format=FORMAT + 1, versions=versions))
    with pytest.raises(
        Refusal, match=rf"has format {FORMAT + 1}, which release 9\.9 has made, .* up to {FORMAT}"
    ):
        restore(Settings(home=folder / "home"), backups, quiet, newer)
    assert {each.name for each in folder.iterdir()} == {f"home-{FORMAT}"}
