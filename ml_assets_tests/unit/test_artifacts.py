import hashlib
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from ml_assets.lib.artifacts import (
    RunFile,
    artifact_rows,
    artifact_type,
    local_files,
    local_folder,
)

CREATED = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


def runs(*rows: dict) -> pa.RecordBatchReader:
    schema = pa.schema([("id", pa.string()), ("created_at", pa.timestamp("us", tz="UTC"))])
    return pa.RecordBatchReader.from_batches(schema, [pa.RecordBatch.from_pylist(list(rows), schema=schema)])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model/model.skops", "model"),
        ("model/MLmodel", "model"),
        ("curves.PNG", "plot"),
        ("table.csv", "table"),
        ("notes.md", "text"),
        ("weights.xyz", "other"),
    ],
)
def test_type_follows_the_ending(path, expected):
    assert artifact_type(path) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///a%20b/c", "/a b/c"),
        ("/a/b", "/a/b"),
        ("s3://bucket/a", None),
        ("mlflow-artifacts:/1/2", None),
        ("relative/path", None),
        (None, None),
    ],
)
def test_only_local_uris_have_a_folder(uri, expected):
    folder = local_folder(uri)
    assert (str(folder) if folder else None) == expected


def test_local_files_are_sized_and_hashed_and_links_are_not_followed(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_bytes(b"bb")
    (tmp_path / "a.txt").write_bytes(b"a")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    found = list(local_files(tmp_path))
    assert [file.path for file in found] == ["a.txt", "sub/b.txt"]
    assert found[1].size_bytes == 2
    assert found[1].sha256 == hashlib.sha256(b"bb").hexdigest()


def test_a_files_row_carries_the_run_and_its_utc_day():
    reader = artifact_rows(
        runs({"id": "r1", "created_at": CREATED}),
        lambda run: [RunFile("m.onnx", f"/x/{run['id']}/m.onnx")],
    )
    (row,) = reader.read_all().to_pylist()
    assert row["experiment_id"] == "r1"
    assert row["file_path"] == "/x/r1/m.onnx"
    assert row["day"] == date(2026, 3, 1)
    assert row["metadata"] == '{"path":"m.onnx"}'


def test_ids_differ_by_run_and_path_and_are_stable():
    def ids() -> list[str]:
        reader = artifact_rows(
            runs({"id": "r1", "created_at": CREATED}, {"id": "r2", "created_at": CREATED}),
            lambda run: [RunFile("a", "/a"), RunFile("b", "/b")],
        )
        return reader.read_all()["id"].to_pylist()

    assert len(set(ids())) == 4
    assert ids() == ids()
