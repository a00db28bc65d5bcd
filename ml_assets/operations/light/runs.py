"""The runs of the light registry, with the methods and the rules of `ml_assets.operations.experiments`."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

from ml_assets.contracts import RUN_STAGES, may_become
from ml_assets.contracts.experiments import EXPERIMENT_COLUMNS
from ml_assets.errors import Refusal
from ml_assets.lib.canonical_json import canonical
from ml_assets.lib.sql import utc_text
from ml_assets.operations.light.artifacts import Collected, LightArtifacts
from ml_assets.operations.light.registry import Registry, objects
from ml_assets.settings import Settings
from ml_assets.tables.run_row import known_day, run_row

_ENDED = RUN_STAGES[-1]

_NAMES = tuple(column.name for column in EXPERIMENT_COLUMNS)
_TYPES = {column.name: column.type for column in EXPERIMENT_COLUMNS}
_JSON = tuple(name for name in _NAMES if _TYPES[name] == "json")
_TIMES = tuple(name for name in _NAMES if _TYPES[name] == "timestamp")


class LightExperiments:
    """The runs of one registry.

    Args:
        registry: where they are.
        settings: for the first day that the graph has.
        artifacts: their files, which are deleted with them.
    """

    def __init__(self, registry: Registry, settings: Settings, artifacts: LightArtifacts) -> None:
        self._registry = registry
        self._artifacts = artifacts
        self._first: date = settings.partitions_start

    def create(self, experiment: str, **columns: Any) -> str:
        """Record a run.

        Args:
            experiment: name of the experiment.
            columns: any other columns of a run: `run_id`, `model_name`, `dataset`, `parameters={"lr": 0.1}` ...
                Unless given, the id is a new one, the status is 'created', and it was created now.

        Returns:
            The run's id.

        Raises:
            ValueError: no such column, a value that the contract refuses, a day that the graph does not have, or an id
                that is taken.
        """
        row = self._judged({**columns, "experiment": experiment})
        now = datetime.now(UTC)
        unless_given = {"id": str(uuid4()), "status": "created", "created_at": utc_text(now)}
        row |= {name: value for name, value in unless_given.items() if row[name] is None}
        if row["status"] in _ENDED and row["completed_at"] is None:
            row["completed_at"] = utc_text(now)
        _refuse_end_without_status(row["status"], row["completed_at"])
        if not row["experiment"] or not row["id"]:
            raise ValueError("a run needs the name of its experiment, and an id that is not empty")
        marks = ", ".join(f":{name}" for name in _NAMES)
        try:
            with self._registry.write() as connection:
                connection.execute(f"INSERT INTO ml_experiments ({', '.join(_NAMES)}) VALUES ({marks})", row)
        except sqlite3.IntegrityError as fault:
            raise ValueError(f"there is a run {row['id']!r} already; give it another id") from fault
        return row["id"]

    def update(self, run_id: str, **columns: Any) -> None:
        """Change a run that has not ended; parameters, metrics and tags are merged by key.

        What is not given or is None stays.

        Raises:
            ValueError: as `create`, there is no such run, or it has ended.
        """
        row = self._judged({name: value for name, value in columns.items() if name not in ("id", "run_id")})
        if {"id", "run_id"} & columns.keys():
            raise ValueError("the id of a run does not change; record another run")
        given = {name: value for name, value in row.items() if value is not None}
        if given.get("status") in _ENDED:
            given.setdefault("completed_at", utc_text(datetime.now(UTC)))
        with self._registry.write() as connection:  # what is read here nobody else changes
            former = connection.execute("SELECT * FROM ml_experiments WHERE id = ?", (run_id,)).fetchone()
            if former is None:
                raise ValueError(f"there is no run {run_id!r}; list() shows what there is")
            if former["status"] in _ENDED:
                raise ValueError(
                    f"run {run_id!r} is {former['status']} since {former['completed_at']} and can no longer be changed"
                )
            if not may_become(former["status"], given.get("status", former["status"])):
                raise ValueError(
                    f"run {run_id!r} is {former['status']} and cannot become {given['status']}: it never goes back"
                )
            _refuse_end_without_status(given.get("status", former["status"]), given.get("completed_at"))
            for name in _JSON:
                if name in given and former[name] is not None:
                    given[name] = canonical({**json.loads(former[name]), **json.loads(given[name])})
            if given:
                changes = ", ".join(f"{name} = :{name}" for name in given)
                connection.execute(
                    f"UPDATE ml_experiments SET {changes} WHERE id = :run_id", {**given, "run_id": run_id}
                )

    def complete(
        self,
        run_id: str,
        metrics: Mapping[str, Any] | None = None,
        status: str = "completed",
        error: str | None = None,
    ) -> None:
        """End a run now, with its last metrics; it cannot be changed afterwards.

        Raises:
            ValueError: as `update`.
        """
        if status not in _ENDED:
            raise ValueError(f"a run does not end as {status!r}; it is one of {', '.join(_ENDED)}")
        self.update(run_id, metrics=metrics, status=status, error=error)

    def get(self, run_id: str) -> dict[str, Any]:
        """One run with all that is known of it.

        Raises:
            Refusal: there is none of this id.
        """
        with self._registry.read() as connection:
            found = connection.execute("SELECT * FROM ml_experiments WHERE id = ?", (run_id,)).fetchone()
        if found is None:
            raise Refusal(f"There is no run {run_id!r} in the registry: list() shows what there is.")
        return shown(dict(found))

    def list(
        self,
        experiment: str | None = None,
        status: str | None = None,
        model_type: str | None = None,
        limit: int | None = 100,
    ) -> "list[dict[str, Any]]":
        """The newest runs.

        Args:
            experiment, status, model_type: only those with this value.
            limit: how many, at most; None for all.
        """
        wanted = {"experiment": experiment, "status": status, "model_type": model_type}
        given = {name: value for name, value in wanted.items() if value is not None}
        where = " AND ".join([f"{name} = :{name}" for name in given]) or "1 = 1"
        statement = f"SELECT * FROM ml_experiments WHERE {where} ORDER BY created_at DESC, id LIMIT :limit"
        with self._registry.read() as connection:
            found = objects(connection.execute(statement, {**given, "limit": -1 if limit is None else limit}))
        return [shown(row) for row in found]

    def delete(self, run_ids: str | Iterable[str]) -> Collected:
        """Delete a run, or several at once, with their files and data; a content that others name stays.

        A run that was adopted stays in the graph until `adopt` is called again.

        Returns:
            What was removed of their files.

        Raises:
            Refusal: there is no such run; then none is deleted.
        """
        asked, hashes = {run_ids} if isinstance(run_ids, str) else set(run_ids), set[str]()
        with self._registry.write() as connection:
            for run_id in sorted(asked):
                found = connection.execute(
                    "SELECT sha256 FROM ml_model_artifacts WHERE experiment_id = ?", (run_id,)
                )
                hashes |= {sha256 for (sha256,) in found}
                if not connection.execute("DELETE FROM ml_experiments WHERE id = ?", (run_id,)).rowcount:
                    raise Refusal(
                        f"There is no run {run_id!r} in the registry, so none was deleted: list() shows what there is."
                    )
        # First the rows, then the files: whoever is killed between leaves files that nobody names.
        return self._artifacts.collect(hashes)

    def _judged(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The values as SQLite keeps them."""
        given = {("id" if name == "run_id" else name): value for name, value in columns.items()}
        row = run_row(given)
        for name, value in row.items():
            if value is None:
                continue
            if _TYPES[name] == "timestamp":
                if not isinstance(value, datetime):
                    raise ValueError(f"{name} cannot be {value!r}; give a datetime with a time zone")
                row[name] = utc_text(value)
            elif not isinstance(value, str):
                raise ValueError(f"{name} cannot be {value!r}; give text")
            elif "\0" in value:
                raise ValueError(f"{name} {value[:60]!r} holds the character U+0000, which no store can hold")
            elif _TYPES[name] == "json" and not value.startswith("{"):
                raise ValueError(f"{name} cannot be {value[:60]}; give a mapping")
        if isinstance(created_at := given.get("created_at"), datetime):
            known_day(created_at, self._first)
        return row


def _refuse_end_without_status(status: str, completed_at: str | None) -> None:
    if completed_at is not None and status not in _ENDED:
        raise ValueError(
            f"completed_at {completed_at} is the end of a run, which is {status}; give its status, too: "
            f"{', '.join(_ENDED)}"
        )


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `ml_experiments` as people see it: `run_id`, mappings, aware datetimes."""
    row = {"run_id": row.pop("id"), **row}
    for name in _JSON:
        row[name] = None if row[name] is None else json.loads(row[name])
    for name in _TIMES:
        row[name] = None if row[name] is None else datetime.fromisoformat(row[name])
    return row
