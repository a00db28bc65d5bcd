"""Who may look into the home."""

import os
from pathlib import Path

import pytest

from ml_assets.cli.instance import prepare_home
from ml_assets.services.home import private_home
from ml_assets.settings import Settings


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture(autouse=True)
def _umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_home_is_its_owners_alone_whatever_the_umask_and_whatever_it_was(tmp_path):
    home = tmp_path / "home"
    prepare_home(Settings(home=home))
    assert mode(home) == 0o700
    home.chmod(0o755)
    prepare_home(Settings(home=home))
    assert mode(home) == 0o700


def test_a_folder_for_everybody_stays_one(tmp_path):
    tmp_path.chmod(0o1777)
    private_home(tmp_path)
    assert mode(tmp_path) == 0o1777
