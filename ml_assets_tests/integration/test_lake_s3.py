"""A lake whose files lie in an object store: the graph, maintenance, several processes, and what goes wrong there."""

import json
import subprocess
import sys
import uuid
from datetime import timedelta
from typing import Any

import boto3
import duckdb
import psycopg
import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.stores.duckdb import DuckLakeStore, pins
from ml_assets.stores.duckdb import extensions as extension_files
from ml_assets.tables.staging import stage
from ml_assets.tables.store import Retention
from ml_assets.tables.validation import WHOLE
from ml_assets_tests.scale import LONG

pytestmark = pytest.mark.timeout(900)  # a whole refresh, on machines that do other things as well

NOW = Retention(timedelta(0), timedelta(0))
"""Nothing is kept for those who may still be reading."""

TABLE = Contract(
    "duckdb/doors",
    "",
    (Column("id", "int64", nullable=False), Column("width", "int64", nullable=False)),
    key=("id",),
)


def write(lake: DuckLakeResource, width: int, rows: int = 100, contract: Contract = TABLE) -> None:
    manager = DuckLakeIOManager(lake=lake)
    data = pa.table({"id": range(rows), "width": [width] * rows})
    with stage(data, contract, manager.limits, WHOLE) as staged:
        manager.table_store().write(contract, staged)


def widths(lake: DuckLakeResource, table: str = "doors") -> list[tuple[Any, ...]]:
    with lake.get_connection() as connection:
        return connection.execute(f"SELECT width, count(*) FROM features.{table} GROUP BY 1").fetchall()


@pytest.fixture
def bucket(object_store):
    """The bucket, by another client."""
    s3: Any = boto3.resource("s3", endpoint_url=object_store.url, region_name="us-east-1")
    return s3.Bucket(object_store.bucket)


def names(bucket: Any, lake: DuckLakeResource) -> list[str]:
    prefix = lake.data.partition(f"{bucket.name}/")[2]
    return sorted(each.key.removeprefix(f"{prefix}/") for each in bucket.objects.filter(Prefix=f"{prefix}/"))


def test_versions_maintenance_and_orphans(s3_lake, postgres, bucket):
    store = DuckLakeStore(s3_lake, postgres)
    for width in range(4):
        write(s3_lake, width)
    assert widths(s3_lake) == [(3, 100)]
    with s3_lake.get_connection() as connection:
        newest = max(v for (v,) in connection.execute("SELECT snapshot_id FROM lake.snapshots()").fetchall())
    assert widths(s3_lake.at(newest - 1)) == [(2, 100)]
    assert store.size() == sum(
        each.size for each in bucket.objects.filter(Prefix=s3_lake.data.split("/", 3)[3])
    )

    prefix = s3_lake.data.split("/", 3)[3]
    orphan = f"features/doors/ducklake-{uuid.uuid4()}.parquet"
    bucket.put_object(Key=f"{prefix}/{orphan}", Body=b"of a killed writer")
    before = names(bucket, s3_lake)
    said = " ".join(store.maintain(NOW))
    after = names(bucket, s3_lake)
    assert "Expired" in said and "1 file of killed writers" in said
    assert orphan in before and orphan not in after
    assert len(after) < len(before) - 1
    assert widths(s3_lake) == [(3, 100)]
    assert store.damage(TABLE) == ""
    assert store.ledger_state(TABLE) == store.live_state(TABLE)

    # Of another catalog that has its data there, too.
    bucket.put_object(Key=f"{prefix}/catalog-{uuid.uuid4()}.json", Body=b"{}")
    bucket.put_object(Key=f"{prefix}/{orphan}", Body=b"it may be the other one's")
    assert "another catalog has its data there" in " ".join(store.maintain(NOW))
    assert orphan in names(bucket, s3_lake)


WRITER = """
import sys
import pyarrow as pa
sys.path.insert(0, sys.argv[4])
from test_lake_s3 import TABLE, write
from dataclasses import replace
from ml_assets.resources.duckdb import DuckLakeResource
lake = DuckLakeResource(home=sys.argv[1], catalog_url=sys.argv[2], data_path=sys.argv[3], s3_endpoint=sys.argv[5])
table = replace(TABLE, asset=f"duckdb/{sys.argv[6]}")
for width in range(1, 6):
    write(lake, width, contract=TABLE)
    write(lake, width, contract=table)
"""


def test_the_key_may_stand_in_a_file(s3_lake, object_store, tmp_path, monkeypatch):
    keys = {name.lower(): value for name, value in object_store.environment.items()}
    file = tmp_path / "aws_credentials"
    for text, is_right in (
        ("", False),
        ("[default]\n" + "".join(f"{n} = {v}\n" for n, v in keys.items()), True),
    ):
        file.write_text(text)
        with monkeypatch.context() as patch:
            patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
            patch.setenv("AWS_REGION", "us-east-1")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nobody has a role here
            for name in object_store.environment:
                patch.delenv(name)
            if is_right:
                write(s3_lake, 3)
                assert widths(s3_lake) == [(3, 100)]
            else:
                with pytest.raises(StoreUnavailable, match="no credentials were found"):
                    write(s3_lake, 2)


def test_two_processes_write_one_lake(s3_lake, postgres, tmp_path):
    from pathlib import Path

    here = str(Path(__file__).parent)
    given = [str(tmp_path), s3_lake.catalog_url, s3_lake.data, here, s3_lake.s3_endpoint]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, *given, f"of_{n}"], stderr=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    for writer in writers:
        _, said = writer.communicate(timeout=250)
        assert writer.returncode == 0, said[-3000:]
    for table in ("doors", "of_0", "of_1"):
        assert widths(s3_lake, table) == [(5, 100)]
    store = DuckLakeStore(s3_lake, postgres)
    assert store.ledger_state(TABLE) == store.live_state(TABLE)


def other(lake: DuckLakeResource, **changes: Any) -> DuckLakeResource:
    return lake.model_copy(update=changes)


def test_what_goes_wrong_is_one_sentence(s3_lake, object_store, monkeypatch):
    secret = object_store.environment["AWS_SECRET_ACCESS_KEY"]
    nowhere = "http://127.0.0.1:1"

    def told(lake: DuckLakeResource) -> str:
        health = lake.health()
        assert health.state == "down"
        for write in (True, False):
            with pytest.raises(StoreUnavailable) as raised, lake.get_connection(write):
                pass
            assert secret not in str(raised.value)
            assert "\n" not in str(raised.value)
        return health.detail

    assert "make the bucket, or correct ML_ASSETS_LAKE_DATA" in told(
        other(s3_lake, data_path="s3://nobody/x")
    )
    assert f"(endpoint {nowhere})" in told(other(s3_lake, s3_endpoint=nowhere))
    assert "set ML_ASSETS_S3_ENDPOINT to a URL" in told(other(s3_lake, s3_endpoint="localhost:9000"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "SignatureDoesNotMatch" in told(s3_lake)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    assert "InvalidAccessKeyId" in told(s3_lake)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "no credentials were found" in told(s3_lake)
    # None of it was remembered: the catalog was not made with what was wrong.
    monkeypatch.undo()
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    write(s3_lake, 7)
    assert widths(s3_lake) == [(7, 100)]


def test_nothing_is_written_where_the_other_files_are_not(s3_lake, bucket):
    write(s3_lake, 1)
    elsewhere = other(s3_lake, data_path=f"{s3_lake.data}-wrong")
    with psycopg.connect(s3_lake.catalog_url) as catalog:  # an embedded catalog follows the setting by itself
        catalog.execute(
            "UPDATE public.ducklake_metadata SET value = %s WHERE key = 'data_path'", (f"{elsewhere.data}/",)
        )
    with pytest.raises(StoreUnavailable, match=r"catalog-.*is not there.: correct ML_ASSETS_LAKE_DATA"):
        write(elsewhere, 2)
    assert names(bucket, elsewhere) == []


def test_a_file_that_vanished_is_told_with_its_table(s3_lake, bucket):
    write(s3_lake, 1)
    for name in names(bucket, s3_lake):
        if "doors" in name:
            bucket.Object(f"{s3_lake.data.split('/', 3)[3]}/{name}").delete()
    with pytest.raises(StoreUnavailable, match="see that nothing else removes files below the prefix"):
        s3_lake.answer("SELECT sum(width) FROM features.doors")


def test_a_pinned_version_that_lost_its_files_stops_no_upgrade(s3_lake, bucket, object_store):
    write(s3_lake, 1)
    with s3_lake.get_connection(write=True) as connection:
        connection.execute(
            "UPDATE lake.ledger.writes SET hash_version = 'former'"
        )  # so that its rows are read
        ((version,),) = connection.execute("SELECT id FROM lake.current_snapshot()").fetchall()
        connection.execute(
            "CREATE TABLE lake.ledger.pins (name VARCHAR, version BIGINT, pinned_at TIMESTAMPTZ)"
        )
        connection.execute("INSERT INTO lake.ledger.pins VALUES ('damaged', $1, now())", [version])
    for name in names(bucket, s3_lake):
        if "doors" in name:
            bucket.Object(f"{s3_lake.data.split('/', 3)[3]}/{name}").delete()
    assert pins.move_former(s3_lake) == []
    with s3_lake.get_connection() as connection:
        assert pins.pinned(s3_lake, connection) == {"damaged": version}
        with pytest.raises(duckdb.Error) as lost:
            connection.execute("FROM features.doors")
        with pytest.raises(duckdb.Error) as elsewhere:
            connection.execute("FROM read_parquet('s3://nothing-here/x.parquet')")
    assert s3_lake.is_loss(lost.value)
    assert not s3_lake.is_loss(elsewhere.value)
    with pytest.raises(StoreUnavailable, match="ML_ASSETS_S3_ENDPOINT"):
        pins.move_former(other(s3_lake, s3_endpoint="http://127.0.0.1:9"))


@pytest.mark.parametrize("name", ["httpfs", "aws"])
def test_a_missing_extension_is_named_with_its_package(s3_lake, monkeypatch, name):
    find = extension_files.importlib.util.find_spec
    monkeypatch.setattr(
        extension_files.importlib.util,
        "find_spec",
        lambda package: None if package == f"duckdb_extension_{name}" else find(package),
    )
    with (
        pytest.raises(StoreUnavailable, match=rf"duckdb-extension-{name}==.*pip install ml-assets\[s3\]"),
        s3_lake.get_connection(),
    ):
        pass


def test_no_query_and_no_catalog_shows_the_key(s3_lake, object_store):
    secret = object_store.environment["AWS_SECRET_ACCESS_KEY"]
    write(s3_lake, 1)
    shown = [
        str(s3_lake.answer(query).to_pylist())
        for query in (
            "SELECT * FROM duckdb_settings()",
            "SELECT * FROM duckdb_secrets()",
            "SELECT * FROM duckdb_databases()",
            "SELECT current_setting('s3_secret_access_key'), current_setting('s3_access_key_id')",
        )
    ]
    assert [each for each in shown if secret in each] == []
    assert "lake_files" in shown[1]
    for query in (
        "SELECT * FROM duckdb_secrets(redact=false)",
        "SELECT * FROM load_aws_credentials()",
        "SELECT * FROM query('FROM load_aws_credentials()')",
    ):
        with pytest.raises(Refusal):
            s3_lake.answer(query)
    # Nothing else of the bucket can be read with it.
    assert s3_lake.answer("SELECT scope FROM duckdb_secrets()").to_pylist() == [
        {"scope": [f"{s3_lake.data}/"]}
    ]
    with psycopg.connect(s3_lake.catalog_url) as catalog:
        tables = catalog.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        kept = [str(catalog.execute(f'SELECT * FROM "{name}"'.encode()).fetchall()) for (name,) in tables]
    assert len(kept) > 10
    assert [each for each in kept if secret in each] == []


@pytest.mark.skipif(
    not LONG, reason="distributed/test_killed_worker.py has the graph on such a lake: make test-all"
)
def test_the_graph_refreshes_and_is_verified(cli, settings, environment, object_store, s3_lake):
    given = {
        **environment,
        **object_store.environment,
        "ML_ASSETS_LAKE_DATA": s3_lake.data,
        "ML_ASSETS_S3_ENDPOINT": object_store.url,
    }
    home = settings.home
    files = {
        "runs/a.jsonl": {
            "run_id": "r1",
            "experiment": "mine",
            "model_name": "cats",
            "status": "completed",
            "created_at": "2026-03-01T10:00:00Z",
            "metrics": {"accuracy": 0.93},
        },
        "documents/d.jsonl": {
            "document_id": "d1",
            "title": "Dogs",
            "text": "Dogs bark.",
            "updated_at": "2026-03-01T00:00:00Z",
        },
    }
    for name, row in files.items():
        file = home / "landing" / name
        file.parent.mkdir(parents=True)
        file.write_text(f"{json.dumps(row)}\n")
    done = cli(home, "refresh", "--json", **given)
    assert done.returncode == 0, done.stderr
    assert not (home / "lake").exists()

    status = cli(home, "status", "--json", "--verify", **given)
    assert status.returncode == 0, status.stderr
    told = json.loads(status.stdout)["stores"]["duckdb"]
    assert told["state"] == "healthy"
    assert told["tables"]["raw_runs"]["rows"] == 1

    asked = cli(home, "sql", "duckdb", "SELECT run_id FROM raw.raw_runs", "--json", **given)
    assert json.loads(asked.stdout) == [{"run_id": "r1"}], asked.stderr

    secret = object_store.environment["AWS_SECRET_ACCESS_KEY"].encode()
    holding = [each for each in home.rglob("*") if each.is_file()]
    assert [each for each in holding if secret in each.read_bytes()] == []
