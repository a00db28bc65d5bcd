import typing

import pytest
from pydantic import ValidationError

from ml_assets.contracts import STREAMS
from ml_assets.errors import Refusal
from ml_assets.intake.artifacts import FileRules
from ml_assets.lib.metric_rules import PrimaryMetric
from ml_assets.settings import Settings, StreamName, read_settings, redact_url


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


def test_a_folder_for_the_engine_is_no_clickhouse_server(monkeypatch):
    monkeypatch.setenv("ML_ASSETS_CLICKHOUSE_URL", "chdb:///srv/clickhouse")
    assert (Settings().mode("clickhouse"), Settings().executor_kind) == ("embedded", "in_process")


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
        (
            "postgresql://postgres@/ml?host=/tmp/x&port=5432",
            "postgresql://postgres@/ml?host=/tmp/x&port=5432",
        ),
        (
            "postgresql://u:s@h1,h2:5/db?sslpassword=s&a=b",
            "postgresql://u:***@h1,h2:5/db?sslpassword=***&a=b",
        ),
        ("postgresql://u@h/db?password=s3cret", "postgresql://u@h/db?password=***"),
        ("postgresql://u@h:5432/db?password=s3@cret", "postgresql://u@h:5432/db?password=***"),
        ("postgresql://h:5432/db?password=s3@cret", "postgresql://h:***"),
        ("redis://h/0?password=s3cret&db=1", "redis://h/0?password=***&db=1"),
        ("s3://b/x?aws_secret_access_key=s3cret", "s3://b/x?aws_secret_access_key=***"),
        ("host=h password=s3cret", "host=h password=***"),
        # Not encoded, as they should have been.
        *((f"postgresql://u:s3{c}cret@h/db", "postgresql://u:***@h/db") for c in "/?#@[]: "),
        ("http://u:s3?token=cret@h", "http://u:***"),
        ("https://t0ken@h:8000/api", "https://***@h:8000/api"),
        ("http://t0ken:@h", "http://***@h"),
        ("https://h/runs/me@home", "https://h/runs/me@home"),
        ("http://[x", "http://[x"),
        ("http://[x?password=s3cret", "http://[x?password=***"),
        ("sqlite:////mail/me@home/m.db", "sqlite:////mail/me@home/m.db"),
    ],
)
def test_urls_are_shown_without_passwords(url, shown):
    assert redact_url(url) == shown


def test_files_of_runs_may_lie_in_folders_of_the_home_and_in_those_that_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    (tmp_path / "landing").mkdir()
    rules = FileRules(Settings().artifact_folders)
    assert rules.allows(tmp_path / "landing" / "files")
    assert rules.allows(tmp_path / "mlflow" / "artifacts" / "1")
    assert not rules.allows(tmp_path / "postgres")
    monkeypatch.setenv("ML_ASSETS_ARTIFACT_ROOTS", "/data/models::/srv/runs")
    rules = FileRules(Settings().artifact_folders)
    assert [str(root) for root in rules.roots[-2:]] == ["/data/models", "/srv/runs"]
    assert not rules.allows(tmp_path / "postgres")


def test_streams_are_named_as_a_list_of_json_or_with_commas(monkeypatch):
    assert Settings().naive_times_utc == ()
    for given in ('["runs", "metrics"]', "runs, metrics", "runs,metrics,"):
        monkeypatch.setenv("ML_ASSETS_NAIVE_TIMES_UTC", given)
        assert Settings().naive_times_utc == ("runs", "metrics")
    for wrong in ("cats", '["cats"]', "[runs]"):
        monkeypatch.setenv("ML_ASSETS_NAIVE_TIMES_UTC", wrong)
        with pytest.raises(ValidationError):
            Settings()
    assert set(typing.get_args(StreamName)) == STREAMS.keys()


def test_the_file_of_a_home_comes_last_key_by_key(monkeypatch, tmp_path):
    file = tmp_path / "ml_assets.toml"
    file.write_text(
        "port = 3007\n"
        "partitions_start = 2020-01-01\n"
        'naive_times_utc = ["runs"]\n'
        'metric_synonyms = { "eval/score" = "accuracy", regret = "loss" }\n'
        "[primary_metric_of_dataset]\n"
        'diabetes = "rmse"\n'
        'images = { metric = "top5", direction = "max" }\n'
    )
    settings = Settings(home=tmp_path)
    assert (settings.port, settings.partitions_start.isoformat(), settings.naive_times_utc) == (
        3007,
        "2020-01-01",
        ("runs",),
    )
    assert settings.metric_rules.canonical("eval/score") == "accuracy"
    assert settings.metric_rules.of_dataset["images"] == PrimaryMetric("top5", "max")
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("ML_ASSETS_PORT", "3009")
    monkeypatch.setenv("ML_ASSETS_METRIC_SYNONYMS", '{"regret": "mae"}')
    monkeypatch.setenv("ML_ASSETS_PRIMARY_METRIC_OF_DATASET", '{"images": {"metric": "top1"}}')
    settings = Settings()
    assert settings.port == 3009
    assert settings.metric_synonyms == {"eval/score": "accuracy", "regret": "mae"}
    assert settings.primary_metric_of_dataset == {
        "diabetes": PrimaryMetric("rmse"),
        "images": PrimaryMetric("top1"),
    }
    assert Settings(port=3010).port == 3010


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metric_synonym = {}", "metric_synonym is no setting; did you mean metric_synonyms?"),
        ("[metrics]\nacc = 1", "metrics is no setting; "),
        (
            'postgres_url = "postgresql://u:hush@h/db"',
            "postgres_url is not set in this file but as ML_ASSETS_POSTGRES_URL.",
        ),
        (
            'openlineage_api_key = "hush"',
            "openlineage_api_key is not set in this file but as ML_ASSETS_OPENLINEAGE_API_KEY.",
        ),
        ('alert_urls = "json://hush"', "alert_urls is not set in this file but as ML_ASSETS_ALERT_URLS."),
        ('home = "/tmp"', "home is not set in this file but as ML_ASSETS_HOME."),
        ("metric_synonyms = { acc = 1 }", "metric_synonyms.acc is 1: Input should be a valid string."),
        (
            'metric_directions = { acc = "up" }',
            "metric_directions.acc is 'up': Input should be 'max' or 'min'.",
        ),
        (
            'primary_metric_of_dataset = { d = { metrics = "rmse" } }',
            "primary_metric_of_dataset.d is {'metrics': 'rmse'}: it has 'metrics', where only metric and direction are "
            "known.",
        ),
        ('port = "many"', "port is 'many': "),
        ("port = ", "is no TOML: "),
    ],
)
def test_a_wrong_file_of_a_home_is_refused_by_name(tmp_path, text, told):
    file = tmp_path / "ml_assets.toml"
    file.write_text(text)
    with pytest.raises(Refusal) as refused:
        read_settings(home=tmp_path)
    assert str(file) in str(refused.value) and told in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("name", ["METRIC_SYNONYMS", "PRIMARY_METRIC_OF_DATASET", "SOURCES"])
def test_an_object_that_cannot_be_read_is_named(monkeypatch, name):
    monkeypatch.setenv(f"ML_ASSETS_{name}", "acc=accuracy")
    with pytest.raises(Refusal, match=rf"ML_ASSETS_{name} cannot be read: .* such as \{{"):
        read_settings()
