"""The files and the data of runs: listing and fingerprinting them, and their rows in `ml_model_artifacts` and
`ml_training_data`.

What belongs here: naming, classifying and fingerprinting. Files on this machine are read, below allowed folders
and nowhere else; nothing is ever loaded from a file. They are listed when a run is taken in, and the list is kept
in a tag of the run: its rows are made from that, whatever has become of the files.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
import pyarrow as pa

from ml_assets.lib.artifact_uris import local_folder

ENDINGS = {
    "model": {".bin", ".joblib", ".onnx", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".skops"},
    "plot": {".gif", ".html", ".jpeg", ".jpg", ".pdf", ".png", ".svg"},
    "table": {".arrow", ".csv", ".json", ".jsonl", ".parquet", ".tsv", ".xlsx"},
    "text": {".log", ".md", ".toml", ".txt", ".yaml", ".yml"},
}

FILES_TAG = "ml_assets.artifacts"
"""Tag of a run's row with the list of its files, as they were when the run was taken in."""

DATASETS_TAG = "mlflow.datasets"
"""Tag of a run's row with the datasets that it used."""

BATCH_RUNS = 256

_READ_BYTES = 2**20
_LARGEST = 2**63


@dataclass(frozen=True)
class FileRules:
    """Which files on this machine may be looked at, and how many.

    Args:
        roots: folders; what does not lie below one of them is not looked at.
        max_files: files and folders of one run.
        max_bytes: bytes of one run that are read for checksums.
    """

    roots: tuple[Path, ...] = ()
    max_files: int = 10_000
    max_bytes: int = 32 * 2**30

    def with_root(self, root: Path | None) -> "FileRules":
        """The same with one more root, if there is one."""
        return self if root is None else replace(self, roots=(*self.roots, root))

    def allows(self, folder: Path) -> bool:
        """Whether a folder, all links followed, lies below one of the roots."""
        real = folder.resolve()
        return any(real.is_relative_to(root.resolve()) for root in self.roots)


@dataclass(frozen=True)
class RunFile:
    """One file of a run.

    Args:
        path: within the run's artifacts, with forward slashes; "" for the whole of them.
        location: full path or URI; "" if it is that of the run with `path` behind it.
        size_bytes, sha256: None where they are not known.
        model: name of the logged model that it belongs to.
        reason: why it could not be read or listed.
    """

    path: str
    location: str = ""
    size_bytes: int | None = None
    sha256: str | None = None
    model: str | None = None
    reason: str | None = None


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


# --- files on this machine --------------------------------------------------------------------------


def folder_files(folder: Path, rules: FileRules) -> Iterator[RunFile]:
    """The files below a folder, if it may be looked at; one entry that says why not if it may not. Never raises."""
    try:
        allowed = rules.allows(folder)
    except (OSError, RuntimeError, ValueError) as fault:  # too long, links in a circle, NUL
        yield RunFile("", reason=f"not looked at: it is no folder of this machine ({_told(fault)})")
        return
    if allowed:
        yield from local_files(folder.resolve(), rules)
    else:
        yield RunFile(
            "",
            reason="not looked at: the folder lies outside of the landing folder, of MLflow's artifacts and of "
            "ML_ASSETS_ARTIFACT_ROOTS; add its root there, then deliver the run again",
        )


def local_files(folder: Path, rules: FileRules | None = None) -> Iterator[RunFile]:
    """Every regular file below `folder` with size and SHA-256, in order of path. Links are not followed.

    What cannot be read is an entry without checksum, with the reason; so is what lies beyond a limit.

    Args:
        rules: for the limits.
    """
    rules = rules or FileRules()
    waiting, entries, room = [folder], rules.max_files, rules.max_bytes
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(parent) as listing:
                found = sorted(islice(listing, entries + 1), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue  # a run that left no files, or a folder that has just gone
        except OSError as fault:
            yield RunFile(_path(parent, folder), reason=f"cannot be listed ({_told(fault)})")
            continue
        for entry in found[:entries]:
            if entry.is_file(follow_symlinks=False):
                file = _fingerprinted(Path(entry.path), folder, room)
                room -= (file.size_bytes or 0) if file.sha256 else 0
                yield file
        waiting += [
            Path(entry.path) for entry in reversed(found[:entries]) if entry.is_dir(follow_symlinks=False)
        ]
        if len(found) > entries:
            reason = f"not all are listed: a run has at most {rules.max_files:,} files and folders"
            yield RunFile("", reason=reason)
            return
        entries -= len(found)


def _fingerprinted(file: Path, folder: Path, room: int) -> RunFile:
    """A file with size and checksum, or with the reason why there is none.

    Args:
        room: bytes that may be read.
    """
    path, size = _path(file, folder), None
    try:
        # It may have been exchanged for a link or a pipe since it was listed.
        number = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(number, "rb", buffering=0) as stream:  # noqa: PTH123 - of a number
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode):
                return RunFile(path, reason="no regular file any more")
            size = status.st_size
            digest, read = hashlib.sha256(), 0
            while size <= room and (part := stream.read(_READ_BYTES)):
                digest.update(part)
                read += len(part)
                if read > room:
                    break  # it grows while it is read
    except OSError as fault:
        return RunFile(path, size_bytes=size, reason=f"cannot be read ({_told(fault)})")
    if max(size, read) > room:
        reason = "no checksum: the run's files are larger than what is read of one run"
        return RunFile(path, size_bytes=size, reason=reason)
    # What was hashed is what has this size, also if the file has grown since.
    return RunFile(path, size_bytes=read, sha256=digest.hexdigest())


def _path(file: Path, folder: Path) -> str:
    """Path within the folder; bytes of a name that are no text are shown as `\\xff`."""
    path = file.relative_to(folder).as_posix() if file != folder else ""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _told(fault: Exception) -> str:
    """What an exception says, without the path in it."""
    return (getattr(fault, "strerror", None) or str(fault) or type(fault).__name__).splitlines()[0][:200]


# --- what a run's row keeps -------------------------------------------------------------------------


def kept_entries(files: Iterable[RunFile]) -> list[dict[str, Any]]:
    """The value of `FILES_TAG`: an object a file, of what is known of it."""
    return [{name: value for name, value in vars(file).items() if value not in (None, "")} for file in files]


Standing = Callable[[str], Iterable[Mapping[str, Any]]]
"""The rows that a table has of a run, by its id."""


def _nothing(_: str) -> Iterable[Mapping[str, Any]]:
    return ()


def kept_files(run: Mapping[str, Any], rules: FileRules, standing: Standing = _nothing) -> Iterator[RunFile]:
    """The files of a run of `id`, `artifact_uri` and `tags`, with their locations.

    They are those that were listed when it was taken in. A run that was not taken in, but made by an application,
    has no such list, nor has one that was taken in before there were lists: of them a folder of this machine is looked
    at now, and of files elsewhere what `ml_model_artifacts` has stands, since who listed them may be gone.

    Args:
        standing: rows of `ml_model_artifacts`.
    """
    uri, kept = run["artifact_uri"] or "", _tag(run["tags"], FILES_TAG)
    folder = local_folder(uri)
    base = str(folder) if folder is not None else uri.rstrip("/")
    if isinstance(kept, list):
        found: Iterable[RunFile] = (_kept_file(entry) for entry in kept if isinstance(entry, dict))
    elif folder is not None:
        found = folder_files(folder, rules)
    else:
        found = (_standing_file(row) for row in standing(run["id"])) if uri else ()
    seen: set[str] = set()
    for file in found:
        if file.path not in seen:  # a folder `models` of its own may look like that of a logged model
            seen.add(file.path)
            location = file.location or (f"{base}/{file.path}" if file.path else base) or "unknown"
            yield RunFile(**{**vars(file), "location": location})


def _kept_file(entry: Mapping[str, Any]) -> RunFile:
    """An entry of the tag, which anybody may have written."""
    text = {name: value for name in ("path", "location") if isinstance(value := entry.get(name), str)}
    known = {
        name: value for name in ("sha256", "model", "reason") if isinstance(value := entry.get(name), str)
    }
    return RunFile(text.get("path", ""), text.get("location", ""), _count(entry.get("size_bytes")), **known)


def _standing_file(row: Mapping[str, Any]) -> RunFile:
    entry = {**orjson.loads(row["metadata"]), **{name: row[name] for name in ("size_bytes", "sha256")}}
    return _kept_file({**entry, "location": row["file_path"]})


def kept_datasets(run: Mapping[str, Any], standing: Standing = _nothing) -> Iterator[RunDataset]:
    """The datasets of a run of `id`, `dataset` and `tags`: MLflow's inputs, else the name that the run has.

    Args:
        standing: rows of `ml_training_data`, which know more of runs that were taken in when the tags did not yet
            have it.
    """
    kept, seen = _tag(run["tags"], DATASETS_TAG), set()
    for each in kept if isinstance(kept, list) else ():
        if isinstance(each, dict) and (name := each.get("name")) and isinstance(name, str):
            known = {
                field: value for field in ("context", "digest") if isinstance(value := each.get(field), str)
            }
            identity = (name, known.get("context", ""), known.get("digest", ""))
            if identity not in seen:
                seen.add(identity)
                told = each if "source" in each else {**each, **_before(standing(run["id"]), identity)}
                source = told.get("source")
                yield RunDataset(
                    name,
                    source if isinstance(source, str) and source else name,
                    row_count=_count(told.get("row_count")),
                    feature_count=_count(told.get("feature_count")),
                    **known,
                )
    if not seen and run["dataset"]:
        yield RunDataset(run["dataset"], source=run["dataset"])


def _before(rows: Iterable[Mapping[str, Any]], identity: tuple[str, str, str]) -> dict[str, Any]:
    for row in rows:
        if (row["dataset_name"], row["context"] or "", row["digest"] or "") == identity:
            known = {name: row[name] for name in ("row_count", "feature_count")}
            return {"source": row["file_path"], **known}
    return {}


def _tag(tags: str | None, name: str) -> Any:
    found = orjson.loads(tags) if tags else {}
    return found.get(name) if isinstance(found, dict) else None


def _count(value: Any) -> int | None:
    """A number of rows, columns or bytes; None for what cannot be one."""
    return value if type(value) is int and 0 <= value < _LARGEST else None


# --- rows -------------------------------------------------------------------------------------------

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
    """Rows of `ml_model_artifacts` for runs of id and created_at, and of what `files_of` needs."""
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
                "metadata": _metadata(file),
            }
            for file in files_of(run)
        ],
    )


def _metadata(file: RunFile) -> str:
    known = {"path": file.path, "model": file.model, "reason": file.reason}
    return orjson.dumps({name: value for name, value in known.items() if value is not None}).decode()


def training_data_rows(
    runs: pa.RecordBatchReader, datasets_of: Callable[[dict[str, Any]], Iterable[RunDataset]]
) -> pa.RecordBatchReader:
    """Rows of `ml_training_data` for runs of id and created_at, and of what `datasets_of` needs."""
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
