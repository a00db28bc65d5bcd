"""The light registry: runs, their files and their data in one SQLite file, with no server and no graph.

What belongs here: recording and reading, and handing all of it to the graph (`adopt`). How it is kept is said in the
modules: registry.py the file, content.py the artifacts, adoption.py the landing files.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.operations.light.adoption import Adopted, adopt
from ml_assets.operations.light.artifacts import Collected, LightArtifacts, LightTrainingData
from ml_assets.operations.light.registry import Registry
from ml_assets.operations.light.runs import LightExperiments
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.operations.run_retention import Retention

__all__ = ["Adopted", "Collected", "LightExperiments", "LightStack"]


class LightStack:
    """The light registry of one home. Nothing is opened or made before the first run is recorded.

    Args:
        settings: where the home is.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._registry = Registry(settings)

    def __repr__(self) -> str:
        return f"<ml_assets.LightStack of {self.home}>"

    @property
    def home(self) -> Path:
        """The folder of everything that is kept."""
        return self.settings.home

    @cached_property
    def experiments(self) -> LightExperiments:
        """Runs: create, update, complete, get, list, delete."""
        return LightExperiments(self._registry, self.settings, self.artifacts)

    @cached_property
    def artifacts(self) -> LightArtifacts:
        """Files of runs: add, list, path, read, verify, delete, collect."""
        return LightArtifacts(self._registry, self.settings)

    @cached_property
    def training_data(self) -> LightTrainingData:
        """Data of runs: add, list, delete."""
        return LightTrainingData(self._registry)

    def adopt(self) -> Adopted:
        """Hand all runs, with their files and data, to the graph, which takes them in with the next refresh.

        They are written to `landing/runs` of the home, a file a day. Again it changes nothing; what has changed since
        takes the place of what it was, and what was deleted goes from the graph, too. The runs stay here as well.

        Raises:
            StoreUnavailable: the registry cannot be used.
        """
        told = adopt(self._registry, self.artifacts.content, self.settings)
        self.artifacts.collect()  # what only the former landing files named
        return told

    def keep(self, best: int, by: str = "dataset", metric: str | None = None) -> "Retention":
        """Which runs would stay if the best of each group were kept; `remove()` of the answer removes the rest.

        Args:
            best: how many of each group.
            by: `dataset`, `experiment`, `model_name`, `model_type` or `model_version`.
            metric: by which they are ranked; None for the one that judges them (docs/metrics.md).

        Raises:
            Refusal: no such column, or several metrics judge the runs of a group.
        """
        from ml_assets.operations.run_retention import best_runs

        return best_runs(self, None, best, by, metric)
