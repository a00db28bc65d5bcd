"""Experiments as `ml_assets.connect().experiments` has them: record runs, find them, look at them.

What belongs here: one thin method an operation, with the docstring that `help()` shows. How an operation works lies in
a module of its own beside this one, or in the resource that it asks.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal
from ml_assets.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.lib.significance import Verdict
    from ml_assets.operations.run_comparison import RunComparison
    from ml_assets.operations.run_retention import Retention
    from ml_assets.operations.run_search import Page, Runs
    from ml_assets.operations.run_verdicts import Judge
    from ml_assets.resources.duckdb import DuckLakeResource
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

    def search(
        self,
        filter: str = "",
        order_by: str | Iterable[str] = ("created_at DESC",),
        limit: int = 100,
        page_token: str | None = None,
    ) -> "Page":
        """Find runs, across all experiments; the language is in docs/experiments.md.

        Args:
            filter: such as `status = 'completed' AND metrics.loss.best < 0.1 AND NOT params.lr > 1e-3`; all runs if
                empty.
            order_by: terms such as `metrics.loss.best` or `created_at DESC`. Runs without the field come last, ties are
                ordered by id.
            limit: runs of the page, up to 10,000.
            page_token: `next_page_token` of the page before. Runs that are added between two pages neither shift nor
                repeat others.

        Returns:
            `.runs`, a list of dicts with `run_id`, `experiment`, `status`, `metrics`, `parameters` and the other
            columns; `.next_page_token`; `.to_pandas()` and `.to_arrow()`.

        Raises:
            Refusal: the filter is wrong, and the sentence shows where; or the token is none of this search.
        """
        from ml_assets.operations.run_search import search_page

        return search_page(self._postgres, self._lake, filter, order_by, limit, page_token)

    def search_all(self, filter: str = "", order_by: str | Iterable[str] = ("created_at DESC",)) -> "Runs":
        """All runs that `search` would find on its pages, however many, with flat memory.

        Returns:
            Iterated over, it gives the runs as dicts; its `.batches()` are a stream of Arrow batches.

        Raises:
            Refusal: as `search`.
        """
        from ml_assets.operations.run_search import Runs, Search

        return Runs(Search(self._postgres, self._lake, filter, order_by))

    def _lake(self) -> "DuckLakeResource":
        self._settings.require_home("duckdb")
        return self._resources["lake"]

    def compare(
        self,
        runs: "Iterable[str] | Iterable[Mapping[str, Any]] | pa.Table",
        metric: str | None = None,
        baseline: str | None = None,
    ) -> "RunComparison":
        """Compare up to 1,000 runs: what differs, which is best by what, and what a metric went with.

            compared = stack.experiments.compare(["r1", "r2", "r3"], metric="accuracy", baseline="r1")
            compared.parameters.to_pandas(), compared.metrics.to_pandas(), compared.importance.to_pandas()
            compared.write_html("comparison.html")

        The importance of parameters is correlational: see `ml_assets.lib.comparison`.

        Args:
            runs: their ids, or rows that have them as `run_id`, such as those of a search.
            metric: what importance is about; unless given, the metric that judges these runs (docs/metrics.md), if half
                of them have it, with different values; else the one with different values that most of them have.
            baseline: the id of the run that differences of metrics are counted from.

        Raises:
            Refusal: no run or more than 1,000, an id that is unknown, or no such metric or baseline among them.
            StoreUnavailable: PostgreSQL does not answer.
        """
        from ml_assets.operations.run_comparison import compare_runs

        lake = self._resources["lake"]
        return compare_runs(self._postgres, lake, self._settings.metric_rules, runs, metric, baseline)

    def is_better(
        self,
        a: str | Sequence[str] | Mapping[str, Any],
        b: str | Sequence[str] | Mapping[str, Any],
        metric: str,
        *,
        dataset: str | None = None,
        higher_is_better: bool | None = None,
        candidates: int | None = None,
    ) -> "Verdict":
        """Whether runs are really better than others, or were lucky.

        What both sides share chooses the test: the same seeds and splits, folds, datasets, or, of two single runs,
        predictions of the same rows. `str()` of the answer is a sentence.

            is_better("model_name=cats", {"model_name": "dogs", "params.lr": 0.1}, "accuracy", dataset="pets")

        Args:
            a, b: a run's id, a list of ids, or what the runs have: any of their columns, `params.NAME`, `tags.NAME`, or
                a filter as `search` takes it. Of the latter only completed runs count, unless a `status` is asked for.
            metric: key of the metric, whose last value counts.
            dataset: only runs on it.
            higher_is_better: which way the metric points; by ML_ASSETS_METRIC_DIRECTIONS and its name if None.
            candidates: how many candidates `a` was selected from as the best of them; None to count the runs of its
                parent, where it is the best of those.

        Returns:
            Effect (metric of `a` less that of `b`), 95 % interval, p, n, the test and why it was chosen, and how many
            more runs would be needed. Where there are not enough, there is no number at all.

        Raises:
            Refusal: there are no such runs, none has the metric, or both sides share runs.
        """
        (verdict,) = self._judge.better_of([a, b], metric, dataset, higher_is_better, candidates)
        return verdict

    def better_of(
        self,
        groups: Mapping[str, str | Sequence[str] | Mapping[str, Any]] | Sequence[Any],
        metric: str,
        *,
        dataset: str | None = None,
        higher_is_better: bool | None = None,
    ) -> "list[Verdict]":
        """Each pair of several groups of runs, as `is_better`, with p values that are corrected for their number.

        Over five shared datasets or more it is Friedman's test and Nemenyi's, else Holm's correction. Of three
        groups or more the best one is told as selected, with what it may owe to luck.

        Args:
            groups: each as `is_better` takes them; in a mapping, by the name that the answer calls them.

        Raises:
            Refusal: as `is_better`.
        """
        return self._judge.better_of(groups, metric, dataset, higher_is_better)

    def best_of(
        self,
        by: str,
        metric: str,
        *,
        dataset: str | None = None,
        where: Mapping[str, Any] | str | None = None,
        higher_is_better: bool | None = None,
    ) -> "list[Verdict]":
        """Each pair of the groups that runs fall into by a column or parameter, as `better_of`.

            best_of("params.optimizer", "val_loss", dataset="pets", where={"model_name": "cats"})

        Args:
            by: `model_name`, `params.optimizer`, `tags.team` ...
            where: only runs that have this: `"status=failed, params.lr=0.1"`, a mapping, or a filter.

        Raises:
            Refusal: as `is_better`, or there are fewer than two groups, or more than 40.
        """
        return self._judge.best_of(by, metric, dataset, where, higher_is_better)

    @cached_property
    def _judge(self) -> "Judge":
        from ml_assets.operations.run_verdicts import Judge

        return Judge(self._settings, self._postgres, self._lake)

    def similar(
        self,
        run_id: str | None = None,
        text: str | None = None,
        k: int = 10,
        where: Mapping[str, Any] | str | None = None,
    ) -> list[dict[str, Any]]:
        """The runs whose cards are nearest in meaning to a run's card, or to words.

            similar("r1", where={"dataset": "pets"})
            similar(text="gradient boosting that overfits")

        Args:
            run_id: the run, which is left out of the answer.
            text: the words, in place of a run. They are embedded by the model that embedded the cards.
            k: how many runs, 1 to 1,000.
            where: only runs that have this: `"status=failed, params.lr=0.1"`, a mapping, or a filter.

        Returns:
            The nearest first: `run_id`, `experiment`, `model_name`, `dataset`, `status`, `metrics`, `parameters`,
            `title`, and `score`, the cosine similarity, 1 at most.

        Raises:
            Refusal: both or neither of run and text, no such run, a run without a card, a text without a word,
                or vectors of another model than the settings name.
            StoreUnavailable: no vectors were made yet.
        """
        from ml_assets.operations.run_similar import similar

        return similar(self._postgres, self._lake, self._resources["embedder"].get, run_id, text, k, where)

    def curves(
        self,
        run_ids: Sequence[str] | str,
        keys: Sequence[str] | str,
        x: str = "step",
        points: int = 1000,
        smoothing: float = 0.0,
        group_by: str | None = None,
    ) -> "pa.Table":
        """Metrics of runs over their steps, thinned out to what a picture can show.

        Of each pixel stand the first point and the last, the least finite value and the greatest, and the first NaN
        and infinities, so that spikes and gaps stay visible. The pixels of a key divide what all its curves span of x.
        A curve of no more than `points` points is returned whole. Of a step that was logged again the newest value
        stands.

        Args:
            run_ids: one run, or any number up to 10,000.
            keys: one metric, or any number, such as `["loss", "val_loss"]`.
            x: `step`; `time`, which is the seconds since the run's `created_at`; or `metric:KEY`, which is the value of
                another metric at the same step, such as `metric:epoch`.
            points: width of the picture in pixels, 2 to 100,000.
            smoothing: weight of what was before in the debiased exponential moving average, as TensorBoard has it, from
                0 to below 1. It is taken over all points; those of a pixel share the average at its end.
            group_by: a column of runs such as `model_name`, or `params.KEY` or `tags.KEY`.

        Returns:
            Columns run_id, key, x, value, smoothed; a row a point, in order of x. Where curves are grouped, group, mean,
            low, high and n as well: the rows of a group without a run_id are its mean over the n runs that are there at
            x, between their own points on a straight line, with its 95 % interval by Student's t, null for n = 1.

        Raises:
            Refusal: there is no such run, none of the runs has logged a key, or an argument is out of range.
            StoreUnavailable: a table was never materialized, or a store does not answer.
        """
        from ml_assets.operations.run_curves import run_curves

        return run_curves(self._lake(), self._postgres, run_ids, keys, x, points, smoothing, group_by)

    def check(self, reader: str = "api") -> "pa.Table":
        """What is wrong with runs that run, or have ended within the last seven days.

        `diverged`: the loss is infinite, or far above its best. `nan`: the last value of a metric is NaN. Of a run with
        the status 'running' also `stalled`: nothing was logged for six hours, or the last half of the points brought
        nothing better; `slow`: less than half of the steps a second that it did before; `long`: it is said to be
        running for over a day. An episode is open from when it is found until it no longer holds, or its run is no
        longer watched.

        Args:
            reader: who is told. Each reader is told of an episode as `new` once.

        Returns:
            The open episodes, in the order in which they began: run_id, kind, since, opened_at, last_seen_at, evidence,
            new.

        Raises:
            StoreUnavailable: `postgres/ml_experiments` was never materialized, or a store does not answer.
        """
        from ml_assets.operations.run_watch import check_runs

        rules, now = self._settings.metric_rules, datetime.now(UTC)
        return check_runs(self._lake(), self._postgres, rules, reader, now)

    def keep(self, best: int, by: str = "dataset", metric: str | None = None) -> "Retention":
        """Which runs would stay if the best of each group were kept; `remove()` of the answer removes the rest.

        Only runs of the light registry and those that `create` made are looked at: the graph's own runs go where
        they came from.

        Args:
            best: how many of each group.
            by: `dataset`, `experiment`, `model_name`, `model_type` or `model_version`.
            metric: by which they are ranked; None for the one that judges them (docs/metrics.md).

        Raises:
            Refusal: no such column, or it is not clear by which metric.
        """
        from ml_assets.operations.light import LightStack
        from ml_assets.operations.run_retention import best_runs

        return best_runs(LightStack(self._settings), self._postgres, best, by, metric)
