"""Settings out of files that are named like them, as Docker and Kubernetes hand secrets over."""

import os
from pathlib import Path
from typing import Any

import pytest

from ml_assets.errors import Refusal
from ml_assets.resources import store_resources
from ml_assets.settings import Settings, read_settings

URL = "postgresql://u:hush@db/ml_dev"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the environment names; the home is beside it."""
    for name in [*os.environ]:
        if name.startswith(("ML_ASSETS_", "DAGSTER_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("ML_ASSETS_SECRETS_DIR", str(folder))
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path / "home"))
    return folder


def test_a_file_is_read_like_the_variable_of_its_name(secrets: Path) -> None:
    (secrets / "ml_assets_postgres_url").write_text(f"{URL}\n")
    (secrets / "ML_ASSETS_PORT").write_text("3007")
    (secrets / "ml_assets_redis_url").write_text("\n")
    (secrets / "ml_assets_sources").write_text('{"nab": "nab/*.csv"}')
    (secrets / "tls.key").write_bytes(b"\xff\x00 of somebody else")
    settings = read_settings()
    assert (settings.postgres_url, settings.port, settings.redis_url) == (URL, 3007, None)
    assert settings.sources == {"nab": "nab/*.csv"}
    assert "hush" not in repr(settings)
    assert settings.masked(f"cannot reach {URL}") == "cannot reach postgresql://u:***@db/ml_dev"
    assert settings.unknown_variables() == {}


def test_the_environment_comes_first(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "ml_assets_port").write_text("3007")
    monkeypatch.setenv("ML_ASSETS_PORT", "3009")
    assert read_settings().port == 3009


def test_an_empty_variable_says_nothing(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose hands `${NAME:-}` on as an empty one."""
    (secrets / "ml_assets_postgres_url").write_text(URL)
    monkeypatch.setenv("ML_ASSETS_POSTGRES_URL", "")
    monkeypatch.setenv("ML_ASSETS_REDIS_URL", "")
    settings = read_settings()
    assert (settings.postgres_url, settings.redis_url) == (URL, None)
    assert settings.child_environment()["ML_ASSETS_POSTGRES_URL"] == URL
    settings.publish()
    assert os.environ["ML_ASSETS_POSTGRES_URL"] == URL


def test_a_dotenv_may_name_the_folder(secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "ml_assets_port").write_text("3007")
    for name in ("ML_ASSETS_HOME", "ML_ASSETS_SECRETS_DIR"):
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"ML_ASSETS_HOME=kept\nML_ASSETS_SECRETS_DIR={secrets}\n")
    monkeypatch.chdir(tmp_path)
    settings = read_settings()
    assert (settings.port, settings.home) == (3007, tmp_path / "kept")
    assert settings.child_environment()["ML_ASSETS_PORT"] == "3007"


def test_resources_show_the_name_of_a_secret_and_dagster_finds_its_own(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "ml_assets_postgres_url").write_text(URL)
    (secrets / "dagster_postgres_url").write_text("postgresql://d:hush@db/dagster")
    for name in ("ML_ASSETS_POSTGRES_URL", "DAGSTER_POSTGRES_URL"):  # so that they are taken away again
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    settings = read_settings()
    settings.publish()
    shown: Any = settings.secret("postgres_url")
    assert shown.env_var_name == "ML_ASSETS_POSTGRES_URL"
    assert "hush" not in repr({name: vars(each) for name, each in store_resources(settings).items()})
    assert os.environ["DAGSTER_POSTGRES_URL"] == "postgresql://d:hush@db/dagster"


def test_a_folder_that_is_not_there_is_named(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ASSETS_SECRETS_DIR", str(secrets / "gone"))
    with pytest.raises(
        Refusal, match=r"ML_ASSETS_SECRETS_DIR is .*gone, which cannot be read \(No such file"
    ):
        read_settings()


def test_a_file_that_cannot_be_read_is_named(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = secrets / "ml_assets_redis_url"
    file.write_bytes(b"redis://:hush\xff@r/0")
    with pytest.raises(Refusal, match=r"ml_assets_redis_url is no text in UTF-8") as refused:
        read_settings()
    assert "hush" not in str(refused.value)

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)  # root may read whatever its mode says
    with pytest.raises(
        Refusal, match=r"ml_assets_redis_url cannot be read \(Permission denied\): let the user"
    ):
        read_settings()


def test_the_file_of_a_home_cannot_name_the_folder(secrets: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ml_assets.toml").write_text(f'secrets_dir = "{secrets}"\n')
    with pytest.raises(Refusal, match="secrets_dir is not set in this file but as ML_ASSETS_SECRETS_DIR"):
        read_settings()
    assert Settings.model_fields["secrets_dir"].default is None
