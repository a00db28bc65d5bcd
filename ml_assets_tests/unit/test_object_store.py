"""Prefixes, endpoints and faults of an object store, as text."""

import pytest

from ml_assets.errors import StoreUnavailable
from ml_assets.lib.object_store import ObjectStore, fault_of, host_of, prefix_of
from ml_assets.maintenance import doctor
from ml_assets.maintenance.backup.folder import BackupFolder
from ml_assets.maintenance.backup.take import _Taking
from ml_assets.resources import store_resources
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.settings import Settings


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("s3://bucket/lake", "s3://bucket/lake"),
        ("s3://bucket/a b/x=1+2/", "s3://bucket/a b/x=1+2"),
        ("s3://my.bucket-1/", "s3://my.bucket-1"),
    ],
)
def test_a_prefix_has_no_slash_at_its_end(given, prefix):
    assert prefix_of(given) == prefix


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("gs://bucket/lake", "other object stores have S3"),
        ("s3://", "not the name of a bucket"),
        ("s3://Bucket/lake", "not the name of a bucket"),
        ("s3://key:S3CRET@bucket/lake", "not the name of a bucket"),
        ("s3://bucket/a*", "its prefix may hold"),
        ("s3://bucket/a//b", "its prefix may hold"),
        ("s3://bucket/a?secret_key=S3CRET", "its prefix may hold"),
    ],
)
def test_what_is_no_prefix_is_refused_without_its_secret(given, why):
    with pytest.raises(ValueError, match=why):
        prefix_of(given)
    with pytest.raises(StoreUnavailable, match=f"{why}.*correct ML_ASSETS_LAKE_DATA") as refused:
        _ = DuckLakeResource(home="unused", data_path=given).data
    assert "S3CRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("http://127.0.0.1:9000", ("127.0.0.1:9000", False)),
        ("https://storage.example.com/", ("storage.example.com", True)),
        ("http://[::1]:9000", ("[::1]:9000", False)),
    ],
)
def test_an_endpoint_is_a_host_with_or_without_tls(endpoint, told):
    assert host_of(endpoint) == told


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:9000",
        "ftp://h",
        "http://",
        "http://h:port",
        "http://h/path",
        "https://key:S3CRET@h",
        "http://h?a=1",
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint):
    with pytest.raises(ValueError, match="it ") as refused:
        host_of(endpoint)
    assert "S3CRET" not in str(refused.value)


def test_an_endpoint_brings_paths_and_a_region():
    there = ObjectStore("http://127.0.0.1:9000").secret("k", "s3://b/x")
    assert (
        "SCOPE 's3://b/x/', ENDPOINT '127.0.0.1:9000', USE_SSL false, URL_STYLE 'path', REGION 'us-east-1'"
        in there
    )
    aws = ObjectStore(region="eu-north-1").secret("k", "s3://b/x")
    assert aws.endswith("SCOPE 's3://b/x/', URL_STYLE 'vhost', REGION 'eu-north-1')")
    assert "REGION" not in ObjectStore().secret("k", "s3://b/x")  # that of the profile
    assert "CHAIN" not in aws + ObjectStore().secret("k", "s3://b/x", keys_in_environment=True)
    assert "CHAIN 'env'" in ObjectStore("https://h").secret("k", "s3://b/x", keys_in_environment=True)
    assert "'vhost'" in ObjectStore("https://h", url_style="vhost").secret("k", "s3://b/x")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("Secret Validation Failure: during `create`", "set AWS_ACCESS_KEY_ID"),
        (
            "IO Error: Could not connect to server error for HTTP PUT to 'http://h/b/x'",
            "ML_ASSETS_S3_ENDPOINT",
        ),
        (
            "HTTP Error: HTTP GET error reading 's3://b/x' in region '' (HTTP 403 Forbidden) InvalidAccessKeyId: The key",
            "check the key",
        ),
        (
            "HTTP Error: Unable to connect to URL s3://b/x: Not Found (HTTP code 404)\n\nNoSuchBucket: The",
            "make the bucket",
        ),
        (
            "HTTP Error: HTTP GET error reading 's3://b/x.parquet' (HTTP 404 Not Found)",
            "a file that is not there",
        ),
        ("HTTP Error: HTTP GET error reading 's3://b/x' (HTTP 301 Moved Permanently)", "ML_ASSETS_S3_REGION"),
        (
            "HTTP Error: HTTP PUT error on 's3://b/x' (HTTP 503 Slow Down)",
            "keeps the object store from answering",
        ),
    ],
)
def test_a_fault_is_told_with_its_remedy(words, remedy):
    found = fault_of(RuntimeError(f"{words}\n\nLINE 1: COPY ... 'secret'"))
    assert found is not None
    assert remedy in found.remedy
    assert "LINE 1" not in found.cause
    assert found.is_loss == ("a file that is not there" in remedy)


def test_other_faults_are_none_of_an_object_store():
    assert fault_of(RuntimeError("Conversion Error: could not convert 'HTTP 404' to INT64")) is None
    assert fault_of(RuntimeError("Transaction conflict - attempting to insert into table")) is None


def test_awss_variables_stand_in_for_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://h:9000")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/ca.pem")
    settings = Settings(home=tmp_path, lake_data="s3://bucket/lake", s3_region="eu-west-1")
    lake = store_resources(settings)["lake"]
    assert (lake.s3_endpoint, lake.s3_region, lake.s3_ca_file) == ("http://h:9000", "eu-west-1", "/ca.pem")
    assert store_resources(Settings(home=tmp_path))["lake"].s3_endpoint == ""


def test_the_doctor_looks_at_what_is_set_without_asking(monkeypatch, tmp_path):
    def found(**given):
        findings = doctor.object_store(Settings(home=tmp_path, **given))
        return [(each.state, each.detail, each.remedy) for each in findings]

    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    assert found() == []
    [(state, detail, _)] = found(lake_data="s3://bucket/lake", s3_endpoint="http://h:9000")
    assert state == "ok" and "s3://bucket/lake at h:9000" in detail
    assert found(lake_data="gs://bucket/lake")[0][::2] == ("error", "Correct ML_ASSETS_LAKE_DATA.")
    [(state, detail, _)] = found(lake_data="s3://bucket/lake", s3_endpoint="http://key:S3CRET@h")
    assert state == "error" and "S3CRET" not in detail
    version = doctor.metadata.version

    def without_httpfs(package):
        if package == "duckdb-extension-httpfs":
            raise doctor.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(doctor.metadata, "version", without_httpfs)
    assert found(lake_data="s3://bucket/lake")[0][::2] == ("error", "Run `pip install 'ml-assets[s3]'`.")


def test_keys_of_aws_are_masked_in_whatever_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3CRETkey")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "S3CRETtoken")
    told = Settings(home=tmp_path).masked("refused S3CRETkey and S3CRETtoken")
    assert told == "refused *** and ***"
    # A process that is started here has the key of the `.env` for an empty variable, and may tell of it.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    given = Settings(home=tmp_path, dotenv={"AWS_SECRET_ACCESS_KEY": "S3CRETother"})
    assert given.child_environment()["AWS_SECRET_ACCESS_KEY"] == "S3CRETother"
    assert given.masked("refused S3CRETother") == "refused ***"


def test_a_backup_names_what_copies_the_files(tmp_path):
    settings = Settings(home=tmp_path / "home", lake_data="s3://bucket/lake", s3_endpoint="http://h:9000")
    taking = _Taking(settings, BackupFolder(tmp_path / "backups"), tmp_path / "stage", lambda *_: None)
    taking._note_left_out()
    [left] = [each for each in taking._left_out if each.what == "files of the lake"]
    assert (
        left.command
        == "aws s3 sync --endpoint-url http://h:9000 's3://bucket/lake' s3://ANOTHER-BUCKET/PREFIX"
    )
    assert "s3://bucket/lake" in left.why
