import pytest
from pydantic import ValidationError

from ml_assets.settings import Settings, redact_url


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("ML_ASSETS_"):
            monkeypatch.delenv(name)


def test_defaults_are_embedded_everywhere():
    settings = Settings()
    stores = ("postgres", "duckdb", "clickhouse", "chroma", "sqlite", "redis", "mlflow")
    assert {settings.mode(store) for store in stores} == {"embedded"}
    assert settings.executor_kind == "in_process"
    assert settings.home.is_absolute()


def test_a_url_makes_its_store_a_server(monkeypatch):
    monkeypatch.setenv("ML_ASSETS_POSTGRES_URL", "postgresql://u:secret@db/ml_dev")
    settings = Settings()
    assert settings.mode("postgres") == "server"
    assert settings.mode("duckdb") == "server"  # the catalog lies on the same server
    assert settings.mode("chroma") == "embedded"
    assert "secret" not in repr(settings)


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    monkeypatch.setenv("ML_ASSETS_CHROMA_URL", "")
    monkeypatch.setenv("ML_ASSETS_PORT", " ")
    assert Settings().chroma_url is None
    assert Settings().port == 3000


def test_a_clickhouse_server_brings_the_multiprocess_executor(monkeypatch):
    monkeypatch.setenv("ML_ASSETS_CLICKHOUSE_URL", "clickhouse://host:8123")
    assert Settings().executor_kind == "multiprocess"


def test_a_wrong_port_is_refused(monkeypatch):
    monkeypatch.setenv("ML_ASSETS_PORT", "70000")
    with pytest.raises(ValidationError, match="port"):
        Settings()


def test_secrets_go_to_resources_as_environment_variables(monkeypatch):
    from dagster import EnvVar

    monkeypatch.setenv("ML_ASSETS_POSTGRES_URL", "postgresql://u:secret@db/ml_dev")
    value = Settings().secret("postgres_url")
    assert isinstance(value, EnvVar)
    assert value.env_var_name == "ML_ASSETS_POSTGRES_URL"
    assert Settings().secret("chroma_url") == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://u:p%40ss@h:5432/db?sslmode=require",
            "postgresql://u:***@h:5432/db?sslmode=require",
        ),
        ("redis://:pass@h:6379/0", "redis://:***@h:6379/0"),
        ("http://h:8000", "http://h:8000"),
    ],
)
def test_urls_are_shown_without_passwords(url, shown):
    assert redact_url(url) == shown
