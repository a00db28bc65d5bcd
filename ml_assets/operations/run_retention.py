"""Keeping the best runs of each group, and removing the rest with their files.

Only runs whose one place this is are removed: those of the light registry, and those that a program has recorded
through `create` (origin `api`). The graph's own runs come from landing files and MLflow, and go where they came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ml_assets.errors import Refusal
from ml_assets.lib.retention import Ranked, best_of_each
from ml_assets.operations.light import LightStack
from ml_assets.tables.pause import writing

if TYPE_CHECKING:
    from ml_assets.resources.postgres import PostgresResource

Place = Literal["light", "postgres"]

_PLACE = "recorded_in"
"""Beside the columns of a run, where it is recorded."""


@dataclass(frozen=True)
class Candidate:
    """A run that may be removed, and whether it is to be.

    Args:
        place: where it is recorded.
        ranked: the run, its rank and what becomes of it.
        files, bytes: of it in the light registry; files of other runs lie where their `artifact_uri` says, and stay.
    """

    place: Place
    ranked: Ranked
    files: int = 0
    bytes: int = 0

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.ranked.run["run_id"]


@dataclass(frozen=True)
class Removed:
    """What was removed: runs, and the files that nobody else names, with their bytes."""

    runs: int
    files: int
    bytes: int


class Retention:
    """Which runs stay and which go; nothing goes before `remove`.

    Args:
        candidates: by group and rank.
        light: where runs of the light registry are.
        postgres: where those of origin `api` are; None if only the light registry was looked at.
    """

    def __init__(
        self, candidates: Sequence[Candidate], light: LightStack, postgres: "PostgresResource | None"
    ) -> None:
        self.candidates = list(candidates)
        self._light = light
        self._postgres = postgres

    @property
    def going(self) -> list[Candidate]:
        """The runs that go."""
        return [each for each in self.candidates if not each.ranked.stays]

    def remove(self) -> Removed:
        """Remove the runs that go, with the files of those of the light registry.

        Raises:
            Refusal: one of them has gone since; nothing was removed of the place where it was.
        """
        with writing(self._light.settings.home):  # a backup has the runs with their files, or neither
            return self._removed()

    def _removed(self) -> Removed:
        ids = {
            place: [each.run_id for each in self.going if each.place == place]
            for place in ("light", "postgres")
        }
        if ids["postgres"] and self._postgres is not None:
            try:
                self._postgres.delete_experiments(ids["postgres"])
            except ValueError as fault:
                raise Refusal(f"Nothing was removed: {fault}. Look again at what would go.") from fault
        if not ids["light"]:
            return Removed(len(self.going), 0, 0)
        freed = self._light.experiments.delete(ids["light"]), self._light.artifacts.collect()
        return Removed(len(self.going), sum(each.files for each in freed), sum(each.bytes for each in freed))


def best_runs(
    light: LightStack,
    postgres: "PostgresResource | None",
    best: int,
    by: str = "dataset",
    metric: str | None = None,
) -> Retention:
    """Rank the runs of both places together; see `ml_assets.lib.retention.best_of_each`.

    Raises:
        Refusal: no such column to group by, or it is not clear by which metric.
        StoreUnavailable: the registry or PostgreSQL does not answer.
    """
    of_api = [] if postgres is None else _api_runs(postgres)
    places: tuple[tuple[Place, list[dict[str, Any]]], ...] = (
        ("light", light.experiments.list(limit=None)),
        ("postgres", of_api),
    )
    runs = [{**run, _PLACE: place} for place, found in places for run in found]
    files: dict[str, list[int]] = {}
    for file in light.artifacts.list():
        files.setdefault(file["run_id"], []).append(file["size_bytes"])
    candidates = []
    for ranked in best_of_each(runs, best, by, metric, light.settings.metric_rules):
        place: Place = ranked.run[_PLACE]
        sizes = files.get(ranked.run["run_id"], []) if place == "light" else []
        candidates.append(Candidate(place, ranked, len(sizes), sum(sizes)))
    return Retention(candidates, light, postgres)


def _api_runs(postgres: "PostgresResource") -> list[dict[str, Any]]:
    with postgres.connect() as connection:
        (table,) = connection.execute("SELECT to_regclass('ml_experiments')").fetchone() or (None,)
    if table is None:  # nobody has recorded a run yet
        return []
    found = postgres.list_experiments(origin="api", limit=2**31 - 1)
    return [{"run_id": run.pop("id"), **run} for run in found]
