import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from ml_assets.intake.artifacts import (
    FileRules,
    RunDataset,
    RunFile,
    artifact_rows,
    artifact_type,
    folder_files,
    kept_datasets,
    kept_entries,
    kept_files,
    local_files,
)
from ml_assets.lib.artifact_uris import local_folder

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
        ("file://[", None),
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


def test_only_what_lies_below_a_root_is_looked_at(tmp_path):
    for name in ("root", "root2"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "a.txt").write_text("a")
    rules = FileRules((tmp_path / "root",))
    (tmp_path / "root" / "out").symlink_to(tmp_path / "root2" / "run")
    assert [file.path for file in folder_files(tmp_path / "root" / "run", rules)] == ["a.txt"]
    outside = [tmp_path / "root2" / "run", tmp_path / "root" / ".." / "root2", tmp_path / "root" / "out"]
    for folder in map(Path, ["/proc/self", *outside, "/nul\0", "/" + "x" * 5000]):
        (file,) = folder_files(folder, rules)
        assert (file.path, file.size_bytes, file.sha256) == ("", None, None)
        assert str(file.reason).startswith("not looked at: ")
    assert list(folder_files(tmp_path / "root" / "none", rules)) == []


def test_what_cannot_be_read_has_a_reason_and_what_lies_beyond_a_limit_too(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x" * 10)
    (tmp_path / os.fsdecode(b"d\xff")).write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    really = os.open

    def refusing(path, flags):  # whoever runs the tests may be allowed to read everything
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return really(path, flags)

    monkeypatch.setattr(os, "open", refusing)
    found = {file.path: file for file in local_files(tmp_path, FileRules(max_bytes=15))}
    assert list(found) == ["a", "b", "c", "d\\xff"]
    assert [file.sha256 is None for file in found.values()] == [False, True, True, False]
    assert found["b"].reason == "cannot be read (Permission denied)"
    assert (found["c"].size_bytes, str(found["c"].reason)[:12]) == (10, "no checksum:")

    *listed, last = local_files(tmp_path, FileRules(max_files=2))
    assert len(listed) <= 2
    assert (last.path, last.reason) == ("", "not all are listed: a run has at most 2 files and folders")


def run_with(tags: dict) -> dict:
    return {"id": "r", "artifact_uri": "s3://bucket/r/", "dataset": "wine", "tags": json.dumps(tags)}


def test_kept_files_and_datasets_are_those_of_the_tags():
    files = [
        RunFile("a", size_bytes=1, sha256="x"),
        RunFile("m/b", "s3://m/b", model="m"),
        RunFile("", reason="no"),
    ]
    kept = list(kept_files(run_with({"ml_assets.artifacts": kept_entries(files)}), FileRules()))
    assert [file.location for file in kept] == ["s3://bucket/r/a", "s3://m/b", "s3://bucket/r"]
    assert [replace(file, location="") for file in kept] == [replace(file, location="") for file in files]
    tags = {"mlflow.datasets": [{"name": "iris", "digest": "d", "context": None, "row_count": 3}]}
    assert list(kept_datasets(run_with(tags))) == [RunDataset("iris", "iris", digest="d", row_count=3)]


@pytest.mark.parametrize(
    "odd", ["text", 1, None, {"name": "x"}, [1, None, [], {"path": 1, "size_bytes": -1}]]
)
def test_tags_that_somebody_else_wrote_bend_nothing(odd):
    run = run_with({"ml_assets.artifacts": odd, "mlflow.datasets": odd})
    assert [(file.path, file.size_bytes) for file in kept_files(run, FileRules())] in ([], [("", None)])
    assert list(kept_datasets(run)) == [RunDataset("wine", "wine")]
    counts = [{"name": "x", "row_count": count} for count in (-1, 2**63, 1.5, "9", True)]
    assert list(kept_datasets(run_with({"mlflow.datasets": counts}))) == [RunDataset("x", "x")]


def test_a_run_that_has_no_list_is_looked_at_now(tmp_path):
    (tmp_path / "a").write_text("a")
    run, rules = {"id": "r", "artifact_uri": tmp_path.as_uri(), "tags": None}, FileRules((tmp_path,))
    assert [file.path for file in kept_files(run, rules)] == ["a"]
    assert list(kept_files({**run, "tags": '{"ml_assets.artifacts":[]}'}, rules)) == []


def test_what_was_known_before_there_were_lists_stands():
    """Of runs of a store that is gone; of this machine's folders nothing stands that may not be looked at."""
    old = {"metadata": '{"path":"a","model":"m"}', "file_path": "s3://b/a", "size_bytes": 3, "sha256": None}
    run = run_with({"mlflow.datasets": [{"name": "iris", "digest": "d", "context": "training"}]})
    assert list(kept_files(run, FileRules(), lambda _: [old])) == [RunFile("a", "s3://b/a", 3, model="m")]
    (refused,) = kept_files({**run, "artifact_uri": "/proc/self"}, FileRules(), lambda _: [old])
    assert refused.path == ""
    row = {"dataset_name": "iris", "digest": "d", "context": "training", "file_path": "sklearn:iris"}
    standing = [{**row, "digest": "e"}, {**row, "row_count": 150, "feature_count": None}]
    assert list(kept_datasets(run, lambda _: standing)) == [
        RunDataset("iris", "sklearn:iris", "training", "d", row_count=150)
    ]


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
