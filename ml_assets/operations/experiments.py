"""Experiments as `ml_assets.connect().experiments` has them: record runs, find them, look at them.

What belongs here: one thin method an operation, with the docstring that `help()` shows. How an operation works lies in
a module of its own beside this one, or in the resource that it asks.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal
from ml_assets.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.postgres import PostgresResource


class Experiments:
    """The runs of one home.

    Args:
        settings: where the stores are.
        resources: by store name, as `ml_assets.resources.store_resources` makes them.
    """

    def __init__(self, settings: Settings, resources: Mapping[str, Any]) -> None:
        self._settings = settings
        self._resources = resources

    @cached_property
    def _postgres(self) -> "PostgresResource":
        self._settings.require_home("postgres")
        return self._resources["postgres"]

    def create(self, experiment: str, **columns: Any) -> str:
        """Record a run of an application, beside those that the graph takes in.

        Args:
            experiment: name of the experiment.
            columns: any other columns of `ml_experiments`: `model_name`, `dataset`, `parameters={"lr": 0.1}` ...
                Unless given, the id is a new one, the status is 'created', and it was created now.

        Returns:
            The run's id.

        Raises:
            ValueError: no such column, a value that the contract refuses, a day that the graph does not have, or an id
                that is taken.
        """
        return self._postgres.create_experiment(experiment, **columns)

    def update(self, run_id: str, **columns: Any) -> None:
        """Change a run that `create` made and that has not ended; parameters, metrics and tags are merged by key.

        Raises:
            ValueError: as `create`, or there is no such run to change.
        """
        self._postgres.update_experiment(run_id, **columns)

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
        self._postgres.complete_experiment(run_id, metrics, status, error)

    def get(self, run_id: str) -> dict[str, Any]:
        """One run with all that is known of it, whoever recorded it.

        Raises:
            Refusal: there is none of this id.
        """
        found = self._postgres.get_experiment(run_id)
        if found is None:
            raise Refusal(
                f"There is no run {run_id!r}: 'ml-assets sql postgres' lists them in ml_experiments."
            )
        return {"run_id": found.pop("id"), **found}

    def best_models(self) -> "pa.Table":
        """The best model of each dataset, by the metric that judges most of its completed runs (docs/metrics.md).

        Returns:
            dataset, runs (those that were compared), model_name, run_id, metric (its canonical name), value,
            higher_is_better.

        Raises:
            StoreUnavailable: no run was taken in yet.
        """
        from ml_assets.operations.run_best import best_models

        return best_models(self._postgres, self._settings.metric_rules)
