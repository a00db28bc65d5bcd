"""The files and the data of runs, as rows of `ml_model_artifacts` and `ml_training_data`.

What belongs here: naming, classifying and fingerprinting. Files on this machine are read; what lies behind
a tracking server is listed by a function that the caller passes in. Nothing is ever loaded from a file.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import pyarrow as pa

ENDINGS = {
    "model": {".bin", ".joblib", ".onnx", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".skops"},
    "plot": {".gif", ".html", ".jpeg", ".jpg", ".pdf", ".png", ".svg"},
    "table": {".arrow", ".csv", ".json", ".jsonl", ".parquet", ".tsv", ".xlsx"},
    "text": {".log", ".md", ".toml", ".txt", ".yaml", ".yml"},
}

BATCH_RUNS = 256


@dataclass(frozen=True)
class RunFile:
    """One file of a run.

    Args:
        path: within the run's artifacts, with forward slashes.
        location: full path or URI.
        size_bytes, sha256: None where the file cannot be read from here.
        metadata: whatever else is known.
    """

    path: str
    location: str
    size_bytes: int | None = None
    sha256: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunDataset:
    """One dataset that a run used."""

    name: str
    source: str
    context: str | None = None
    digest: str | None = None
    row_count: int | None = None
    feature_count: int | None = None


def artifact_type(path: str) -> str:
    """model, plot, table, text or other, by where the file lies and how its name ends."""
    pure = PurePosixPath(path)
    ending = pure.suffix.lower()
    for name, endings in ENDINGS.items():
        if ending in endings:
            return name
    return "model" if pure.name == "MLmodel" else "other"


def local_folder(uri: str | None) -> Path | None:
    """The folder on this machine that a `file:` URI or an absolute path names; None for anything else."""
    if not uri:
        return None
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme and Path(uri).is_absolute() else None


def local_files(folder: Path) -> Iterator[RunFile]:
    """Every regular file below `folder` with size and SHA-256, in order of path. Links are not followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(root) / name
            if file.is_symlink() or not file.is_file():
                continue
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            path = file.relative_to(folder).as_posix()
            yield RunFile(path, str(file), file.stat().st_size, digest)


ARTIFACT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("experiment_id", pa.string()),
        ("artifact_type", pa.string()),
        ("file_path", pa.string()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("metadata", pa.string()),
        ("day", pa.date32()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)

TRAINING_DATA_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("experiment_id", pa.string()),
        ("dataset_name", pa.string()),
        ("file_path", pa.string()),
        ("context", pa.string()),
        ("digest", pa.string()),
        ("row_count", pa.int64()),
        ("feature_count", pa.int64()),
        ("day", pa.date32()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)


def artifact_rows(
    runs: pa.RecordBatchReader, files_of: Callable[[dict[str, Any]], Iterable[RunFile]]
) -> pa.RecordBatchReader:
    """Rows of `ml_model_artifacts` for runs of id, artifact_uri and created_at."""
    return _rows(
        runs,
        ARTIFACT_SCHEMA,
        lambda run: [
            {
                "id": _identity(run["id"], file.path),
                "artifact_type": artifact_type(file.path),
                "file_path": file.location,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "metadata": orjson.dumps({"path": file.path, **file.metadata}).decode(),
            }
            for file in files_of(run)
        ],
    )


def training_data_rows(
    runs: pa.RecordBatchReader, datasets_of: Callable[[dict[str, Any]], Iterable[RunDataset]]
) -> pa.RecordBatchReader:
    """Rows of `ml_training_data` for runs of id, dataset and created_at."""
    return _rows(
        runs,
        TRAINING_DATA_SCHEMA,
        lambda run: [
            {
                "id": _identity(run["id"], dataset.name, dataset.context or "", dataset.digest or ""),
                "dataset_name": dataset.name,
                "file_path": dataset.source,
                "context": dataset.context,
                "digest": dataset.digest,
                "row_count": dataset.row_count,
                "feature_count": dataset.feature_count,
            }
            for dataset in datasets_of(run)
        ],
    )


def _rows(
    runs: pa.RecordBatchReader,
    schema: pa.Schema,
    rows_of: Callable[[dict[str, Any]], list[dict[str, Any]]],
) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        for batch in runs:
            for start in range(0, batch.num_rows, BATCH_RUNS):
                rows = [
                    {
                        **row,
                        "experiment_id": run["id"],
                        "day": run["created_at"].date(),
                        "created_at": run["created_at"],
                    }
                    for run in batch.slice(start, BATCH_RUNS).to_pylist()
                    for row in rows_of(run)
                ]
                if rows:
                    yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _identity(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
