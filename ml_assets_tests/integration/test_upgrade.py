"""Homes of former formats open, are upgraded and hold what they held; those of newer ones are refused.

In fixtures/ there is a backup of a home of each format, `home-<number>.tar.gz`: of format 0 one that the last release
without a number has made, and of this format one of this release. What needs no store is tested in
unit/test_home_format.py.
"""

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

pytestmark = pytest.mark.timeout(1800)

FIXTURES = Path(__file__).parents[1] / "fixtures"


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
    with tarfile.open(FIXTURES / f"home-{number}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return BackupFolder(folder / f"home-{number}")


def test_there_is_a_home_of_every_format():
    kept = sorted(file.name for file in FIXTURES.glob("home-*.tar.gz"))
    assert kept == [f"home-{number}.tar.gz" for number in range(FORMAT + 1)]
    assert sum((FIXTURES / name).stat().st_size for name in kept) < 3_000_000


@pytest.mark.parametrize("number", range(FORMAT + 1))
def test_a_home_of_each_format_opens_and_holds_what_it_held(folder: Path, number: int):
    settings = Settings(home=folder / "home")
    # Which compares rows and content hashes of every table with those that the former release has noted.
    restored = restore(settings, backups_of(number, folder), quiet)
    assert restored.manifest.home_format == number
    assert restored.tables >= 20
    told = read_format(settings.home)
    assert told.number == FORMAT
    assert [step.number for step in told.steps] == [step.number for step in STEPS]
    stack = ml_assets.connect(settings=settings)
    (pin,) = stack.features.pins().to_pylist()
    assert pin["name"] == "paper"
    then = stack.features.pinned("paper", "run_features").read_all()
    assert sorted(then["run_id"].to_pylist()) == ["r1", "r2"]
    runs = stack.sql("postgres", "SELECT id FROM ml_experiments ORDER BY id")
    assert runs["id"].to_pylist() == ["r1", "r2"]
    light = ml_assets.connect(settings=settings, light=True)
    assert [run["model_name"] for run in light.experiments.list()] == ["mice"]


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
