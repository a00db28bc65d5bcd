"""The files and the data of the light registry's runs."""

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256 as sha256_of
from pathlib import Path, PurePosixPath
from typing import Any

from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.lib.canonical_json import canonical
from ml_assets.lib.sql import utc_text
from ml_assets.operations.light.content import ContentStore
from ml_assets.operations.light.registry import Registry, objects, require_run
from ml_assets.settings import Settings
from ml_assets.tables.pause import writing

_NAME_BYTES = 255
"""Longest name of a file or folder that file systems take."""


@dataclass(frozen=True)
class Collected:
    """Files that nobody named any more and that were removed, and their bytes."""

    files: int
    bytes: int


class LightArtifacts:
    """The files of the runs, stored once by content and checked whenever they are read.

    Args:
        registry: where their rows are.
        settings: the files lie in `artifacts` below its home; its SQLite file may name some of them, too.
    """

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._home = settings.home
        self._graph = settings.sqlite_path
        self.content = ContentStore(settings.artifacts)

    def add(
        self,
        run_id: str,
        path: Path | str,
        artifact_type: str | None = None,
        name: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Keep a copy of a file as one of a run.

        Of equal contents one is kept, whosever they are. Another content under a name that the run has takes the place
        of the former one.

        Args:
            path: of the file.
            artifact_type: such as 'model', 'scaler' or 'vectorizer'; by the name's ending if None.
            name: path within the run, with forward slashes; the file's own name if None.

        Returns:
            The artifact's row.

        Raises:
            Refusal: there is no such run or file, or the name is none or that of a folder of the run.
        """
        from ml_assets.intake.artifacts import artifact_type as type_by_name

        name = _checked(Path(path).name if name is None else name)
        with self.content.staged(Path(path)) as staged:
            intact = self.content.intact(staged.sha256)
            row = {
                "id": _identity(run_id, name),
                "experiment_id": run_id,
                "artifact_type": artifact_type or type_by_name(name),
                "path": name,
                "size_bytes": staged.size_bytes,
                "sha256": staged.sha256,
                "metadata": None if metadata is None else canonical(metadata),
                "created_at": utc_text(datetime.now(UTC)),
            }
            # The registry's write lock is that of the files as well: nobody collects between these lines. And a backup,
            # which copies files and rows one after the other, has both or neither.
            with writing(self._home), self._registry.write() as connection:
                require_run(connection, run_id)
                _refuse_folder(connection, run_id, name)
                former = connection.execute(
                    "SELECT * FROM ml_model_artifacts WHERE id = ?", (row["id"],)
                ).fetchone()
                self.content.put(staged, intact)
                _insert(connection, "ml_model_artifacts", row)
        if former is not None and former["sha256"] != staged.sha256:
            self.collect({former["sha256"]})
        return _artifact(row)

    def list(self, run_id: str | None = None) -> "list[dict[str, Any]]":
        """The files of a run, or of all, by run and path."""
        statement = (
            "SELECT * FROM ml_model_artifacts WHERE :run_id IS NULL OR experiment_id = :run_id "
            "ORDER BY experiment_id, path"
        )
        with self._registry.read() as connection:
            return [_artifact(row) for row in objects(connection.execute(statement, {"run_id": run_id}))]

    def path(self, run_id: str, name: str) -> Path:
        """Where the content of a file lies, once it was checked; read it, do not change it.

        Raises:
            Refusal: the run has no such file, or it was changed or lost.
        """
        row = self._row(run_id, name)
        if damage := self._damage(row):
            raise Refusal(damage)
        return self.content.path(row["sha256"])

    def read(self, run_id: str, name: str) -> bytes:
        """The content of a file, checked.

        Raises:
            Refusal: as `path`.
        """
        row = self._row(run_id, name)
        try:
            content = self.content.path(row["sha256"]).read_bytes()
        except FileNotFoundError:
            raise Refusal(self._told(row, None)) from None
        if (found := sha256_of(content).hexdigest()) != row["sha256"]:
            raise Refusal(self._told(row, found))
        return content

    def verify(self, run_id: str | None = None) -> "list[str]":
        """Read every file of a run, or of all; a sentence for each that was changed or lost."""
        return [damage for row in self.list(run_id) if (damage := self._damage(row))]

    def delete(self, run_id: str, name: str) -> None:
        """Delete a file of a run; its content goes unless somebody else names it.

        Raises:
            Refusal: the run has no such file.
        """
        row = self._row(run_id, name)
        with self._registry.write() as connection:
            connection.execute("DELETE FROM ml_model_artifacts WHERE id = ?", (row["id"],))
        self.collect({row["sha256"]})

    def collect(self, among: "set[str] | None" = None) -> Collected:
        """Remove the contents that no row names: of this registry, of its landed runs, or of the graph's
        `ml_model_artifacts`; and what processes that were killed have left.

        Args:
            among: SHA-256 of the contents that are looked at; all if None.
        """
        found = set(self.content.all() if among is None else among)
        with self._registry.read() as connection:
            candidates = found - self._named(connection, found)
        files = freed = 0
        if candidates:
            # Looked at once more, now that nobody can add a row: another process may have done so since.
            with writing(self._home), self._registry.write() as connection:
                for sha256 in candidates - self._named(connection, candidates):
                    files += 1
                    freed += self.content.remove(sha256)
        if among is None and self.content.folder.exists():
            self.content.clear_partial()
            with writing(self._home), self._registry.write() as connection:
                ours = connection.execute("SELECT id FROM ml_experiments UNION SELECT run_id FROM landed")
                known = {run_id for (run_id,) in ours}
                self.content.clear_views(known | self._of_graph("SELECT DISTINCT experiment_id FROM {table}"))
        return Collected(files, freed)

    def _named(self, connection: sqlite3.Connection, among: set[str]) -> set[str]:
        """Those of these contents that a row names."""
        asked, one_of = json.dumps(sorted(among)), "sha256 IN (SELECT value FROM json_each(:asked))"
        ours = connection.execute(
            f"SELECT sha256 FROM ml_model_artifacts WHERE {one_of} UNION SELECT sha256 FROM landed WHERE {one_of}",
            {"asked": asked},
        )
        graphs = self._of_graph(f"SELECT DISTINCT sha256 FROM {{table}} WHERE {one_of}", asked=asked)
        return {sha256 for (sha256,) in ours} | graphs

    def _of_graph(self, query: str, **values: str) -> set[str]:
        """What the graph's table of artifacts answers; nothing before the graph has made it."""
        if not self._graph.exists():
            return set()
        try:
            connection = sqlite3.connect(f"{self._graph.absolute().as_uri()}?mode=rw", uri=True)
            try:
                connection.execute("PRAGMA query_only = ON")
                there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ml_model_artifacts'")
                if there.fetchone() is None:
                    return set()
                rows = connection.execute(query.format(table="ml_model_artifacts"), values)
                return {value for (value,) in rows}
            finally:
                connection.close()
        except sqlite3.Error as fault:
            raise StoreUnavailable(
                f"SQLite file {self._graph} cannot be asked which files it names ({fault}), so none was removed: mend "
                "it, or try again when it is free."
            ) from fault

    def _row(self, run_id: str, name: str) -> dict[str, Any]:
        with self._registry.read() as connection:
            found = connection.execute(
                "SELECT * FROM ml_model_artifacts WHERE experiment_id = ? AND path = ?", (run_id, name)
            ).fetchone()
        if found is None:
            raise Refusal(f"Run {run_id!r} has no file {name!r} in the registry: list() shows what there is.")
        return _artifact(dict(found))

    def _damage(self, row: dict[str, Any]) -> str:
        found = self.content.found(row["sha256"])
        return "" if found == row["sha256"] else self._told(row, found)

    def _told(self, row: dict[str, Any], found: str | None) -> str:
        state = f"now has the SHA-256 {found}" if found else "is gone"
        return (
            f"File {row['path']!r} of run {row['run_id']!r} was added with the SHA-256 {row['sha256']}, and "
            f"{self.content.path(row['sha256'])} {state}: add the file again, or put back its content from a copy."
        )


class LightTrainingData:
    """Which data the runs used.

    Args:
        registry: where the rows are.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def add(
        self,
        run_id: str,
        dataset_name: str,
        file_path: str,
        row_count: int | None = None,
        feature_count: int | None = None,
        context: str | None = None,
        digest: str | None = None,
    ) -> dict[str, Any]:
        """Note a dataset that a run was trained or judged on; the same one again takes the place of the former note.

        Args:
            file_path: where the data lies, or the scheme that made it.
            context: training, validation or testing.
            digest: fingerprint of the data.

        Raises:
            Refusal: there is no such run.
            ValueError: a count is no number from 0 on, or a name is no text.
        """
        for field, value in {"row_count": row_count, "feature_count": feature_count}.items():
            if value is not None and (type(value) is not int or not 0 <= value < 2**63):
                raise ValueError(f"{field} cannot be {value!r}; give a whole number from 0 on")
        for field, value in {"dataset_name": dataset_name, "file_path": file_path}.items():
            if not isinstance(value, str) or not value or "\0" in value:
                raise ValueError(f"{field} cannot be {value!r}; give text")
        row = {
            "id": _identity(run_id, dataset_name, context or "", digest or ""),
            "experiment_id": run_id,
            "dataset_name": dataset_name,
            "file_path": file_path,
            "context": context,
            "digest": digest,
            "row_count": row_count,
            "feature_count": feature_count,
            "created_at": utc_text(datetime.now(UTC)),
        }
        with self._registry.write() as connection:
            require_run(connection, run_id)
            _insert(connection, "ml_training_data", row)
        return _shown(row)

    def list(self, run_id: str | None = None) -> "list[dict[str, Any]]":
        """The data of a run, or of all, by run and name."""
        statement = (
            "SELECT * FROM ml_training_data WHERE :run_id IS NULL OR experiment_id = :run_id "
            "ORDER BY experiment_id, dataset_name, context, digest"
        )
        with self._registry.read() as connection:
            return [_shown(row) for row in objects(connection.execute(statement, {"run_id": run_id}))]

    def delete(self, run_id: str, dataset_name: str) -> None:
        """Delete what is noted of a dataset of a run, in every context. The data stay where they are.

        Raises:
            Refusal: the run has no such dataset.
        """
        with self._registry.write() as connection:
            known = connection.execute(
                "DELETE FROM ml_training_data WHERE experiment_id = ? AND dataset_name = ?",
                (run_id, dataset_name),
            )
            if not known.rowcount:
                raise Refusal(
                    f"Run {run_id!r} has no dataset {dataset_name!r} in the registry: list() shows what there is."
                )


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    marks = ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})", row)


def _identity(*parts: str) -> str:
    """The id that the graph gives the same row."""
    return sha256_of("\0".join(parts).encode()).hexdigest()[:32]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    shown = {("run_id" if name == "experiment_id" else name): value for name, value in row.items()}
    return {**shown, "created_at": datetime.fromisoformat(row["created_at"])}


def _artifact(row: dict[str, Any]) -> dict[str, Any]:
    metadata = row["metadata"]
    return {**_shown(row), "metadata": None if metadata is None else json.loads(metadata)}


def _checked(name: str) -> str:
    """The name of a file within a run, as one that every file system takes.

    Raises:
        Refusal: it is none.
    """
    parts = PurePosixPath(name).parts
    fine = (
        parts
        and "\0" not in name
        and not name.startswith("/")
        and not {".", ".."} & set(name.split("/"))
        and all(len(part.encode()) <= _NAME_BYTES for part in parts)
        and not parts[-1].endswith(".partial")
    )
    if not fine:
        raise Refusal(
            f"{name[:100]!r} cannot be the name of a run's file: give a relative path with forward slashes, without "
            f"'..', each part of at most {_NAME_BYTES} bytes."
        )
    return "/".join(parts)


def _refuse_folder(connection: sqlite3.Connection, run_id: str, name: str) -> None:
    """Refuse a name that is a folder of the run, or lies below one of its files."""
    above = {str(parent) for parent in PurePosixPath(name).parents}
    for (path,) in connection.execute(
        "SELECT path FROM ml_model_artifacts WHERE experiment_id = ? AND path <> ?", (run_id, name)
    ):
        if path in above or path.startswith(f"{name}/"):
            raise Refusal(
                f"Run {run_id!r} has a file {path!r}, beside which {name!r} cannot be: give it another name."
            )
