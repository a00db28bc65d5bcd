"""Whether runs are really better than others: which runs are meant, what they share, and the verdict on them.

What belongs here: reading runs and their predictions. Which test fits is decided in `lib/significance.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.experiments import RUNS
from ml_assets.errors import Refusal
from ml_assets.lib import run_samples, significance
from ml_assets.lib.run_samples import LoggedRun
from ml_assets.lib.run_selectors import RunField, is_condition, label, require_text, run_field, told
from ml_assets.lib.significance import Rows, Sample, Verdict
from ml_assets.lib.words import counted
from ml_assets.operations.run_conditions import Wanted, missing_relation, wanted
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    from psycopg import Connection

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

Runs = str | Sequence[str] | Mapping[str, Any]
"""A run's id, several ids, or what the runs have: `{"model_name": "cats", "params.lr": 0.1}`, or a filter."""

MOST_GROUPS = 40
"""Groups that are compared at once. These are 780 pairs; a correction for more would leave nothing."""


class Judge:
    """Compares the runs of one home.

    Args:
        settings: which way a metric is better.
        postgres: has the runs.
        lake: gives the lake, which has the predictions, and the histories of metrics.
    """

    def __init__(
        self, settings: Settings, postgres: "PostgresResource", lake: "Callable[[], DuckLakeResource]"
    ) -> None:
        self._settings = settings
        self._postgres = postgres
        self._lake = lake

    def better_of(
        self,
        groups: Mapping[str, Runs] | Sequence[Runs],
        metric: str,
        dataset: str | None = None,
        higher_is_better: bool | None = None,
        candidates: int | None = None,
    ) -> list[Verdict]:
        """See `Experiments.better_of`.

        Args:
            candidates: how many candidates the first group was selected from; None to find that out.
        """
        named = groups if isinstance(groups, Mapping) else {_name(each): each for each in groups}
        if len(named) < len(groups):
            raise Refusal(f"{', '.join(named)} cannot be compared with itself: name each group once.")
        if len(named) < 2:
            raise Refusal("A comparison takes two runs or two groups of runs: name another one.")
        equal = {} if dataset is None else {"dataset": dataset}
        metric = require_text(metric, "the name of a metric")
        chosen, whole = {}, set()
        for name, asked in named.items():
            meant = _ids(asked) or self._wanted(asked)
            chosen[name] = self._runs_of(meant, metric, equal)
            if not isinstance(meant, Wanted) or meant.names_status:
                whole.add(name)
        selected = {} if candidates is None else {next(iter(named)): candidates}
        return self._judge(chosen, metric, higher_is_better, selected, whole)

    def best_of(
        self,
        by: str,
        metric: str,
        dataset: str | None = None,
        where: Mapping[str, Any] | str | None = None,
        higher_is_better: bool | None = None,
    ) -> list[Verdict]:
        """See `Experiments.best_of`."""
        metric = require_text(metric, "the name of a metric")
        among = self._wanted(where).also({} if dataset is None else {"dataset": dataset})
        field = run_field(by)
        runs = self._select(metric, among, field)
        groups: dict[str, list[LoggedRun]] = {}
        for run in runs:
            if (value := label(run.label)) is not None:
                # A number alone would be no name in a sentence.
                groups.setdefault(f"{by}={value}" if field.key else value, []).append(run)
        groups = {
            name: group
            for name, group in sorted(groups.items())
            if any(run.value is not None for run in group)
        }
        if len(groups) < 2:
            if not runs:
                raise self._none(among)
            self._require_metric(runs, metric)
            raise Refusal(
                f"{counted(len(runs), 'run')}{f' of {among}' if str(among) else ''} "
                + (f"with {metric} have one {by}, {next(iter(groups))}" if groups else f"have no {by}")
                + ": there is nothing to compare."
            )
        if len(groups) > MOST_GROUPS:
            raise Refusal(
                f"{len(groups):,} values of {by} are too many to be compared pair by pair; {MOST_GROUPS} are the most: "
                "narrow the runs by a dataset or a filter."
            )
        whole = set(groups) if among.names_status else set()
        return self._judge(groups, metric, higher_is_better, {}, whole)

    def _judge(
        self,
        groups: Mapping[str, Sequence[LoggedRun]],
        metric: str,
        higher_is_better: bool | None,
        candidates: dict[str, int],
        whole: set[str],
    ) -> list[Verdict]:
        """The verdict on each pair.

        Args:
            candidates: how many candidates a group was selected from; found out for those that are not named.
            whole: groups whose runs count whatever their status.
        """
        _require_apart(groups)
        if higher_is_better is None:
            higher_is_better = self._settings.metric_rules.higher_is_better(metric)
        rows = self._rows(groups, metric)
        if not rows:
            self._require_metric([run for runs in groups.values() for run in runs], metric)
        samples: dict[str, Sample] = {}
        left_out: dict[str, str] = {}
        for name, runs in run_samples.with_states(groups).items():
            if len(runs) == 1 and name not in candidates:
                candidates[name] = self._candidates(runs[0], metric, higher_is_better)
            samples[name], left_out[name] = run_samples.sample(
                name, runs, rows.get(name), candidates.get(name, 1), only_completed=name not in whole
            )
        if len(samples) > 2:
            # This comparison is what selects the best one.
            best = run_samples.leader(list(samples.values()), higher_is_better)
            if best is not None:
                count = max(len(samples), samples[best].candidates)
                samples[best] = replace(samples[best], candidates=count)
        found = significance.better_of(*samples.values(), higher_is_better=higher_is_better)
        return [
            replace(
                verdict,
                metric=metric,
                reason=" ".join(filter(None, (left_out[verdict.a], left_out[verdict.b], verdict.reason))),
            )
            for verdict in found
        ]

    def _wanted(self, asked: Any) -> Wanted:
        return wanted(asked, self._postgres, self._lake)

    def _runs_of(
        self, meant: Sequence[str] | Wanted, metric: str, equal: Mapping[str, Any]
    ) -> list[LoggedRun]:
        """The runs that are meant.

        Raises:
            Refusal: there are none, or not all that are named.
        """
        if isinstance(meant, Wanted):
            matched = meant.also(equal)
            if runs := self._select(metric, matched):
                return runs
            raise self._none(matched)
        found = {run.run_id: run for run in self._select(metric, Wanted({}), run_ids=meant)}
        if missing := [run_id for run_id in meant if run_id not in found]:
            raise Refusal(
                f"There is no run {missing[0]!r}: 'ml-assets sql postgres' lists them in ml_experiments."
            )
        runs = [run for run in found.values() if equal.get("dataset", run.dataset) == run.dataset]
        if not runs:
            raise Refusal(
                f"No run of {', '.join(meant)} is on the dataset {equal['dataset']}: their datasets are "
                f"{', '.join(sorted({run.dataset or 'unknown' for run in found.values()}))}."
            )
        return runs

    def _select(
        self,
        metric: str,
        among: Wanted,
        by: RunField | None = None,
        run_ids: Sequence[str] | None = None,
    ) -> list[LoggedRun]:
        from psycopg.rows import class_row

        bound: dict[str, Any] = {"metric": metric, "run_ids": list(run_ids or ())}
        condition = among.sql(bound) if run_ids is None else "id = ANY(%(run_ids)s)"
        statement = read_sql("postgres/verdicts/runs_of_group.sql").format(
            conditions=condition, label="NULL" if by is None else by.sql(bound)
        )
        with self._asking() as connection, connection.cursor(row_factory=class_row(LoggedRun)) as cursor:
            return cursor.execute(statement.encode(), bound).fetchall()

    def _rows(self, groups: Mapping[str, Sequence[LoggedRun]], metric: str) -> dict[str, Rows]:
        """The metric of each group row by row, where the groups are single runs that predicted the same rows."""
        import duckdb

        score = run_samples.SCORES.get(self._settings.metric_rules.canonical(metric))
        if score is None or any(len(runs) != 1 for runs in groups.values()):
            return {}
        name_of = {runs[0].run_id: name for name, runs in groups.items()}
        asked = {"run_ids": list(name_of), "score": score}
        try:
            lake = self._lake()
        except Refusal:  # there is no home with a lake, and so no prediction
            return {}
        try:
            table = lake.reader(read_sql("duckdb/operations/predicted_rows.sql"), asked).read_all()
        except duckdb.CatalogException:  # nobody has predicted anything yet
            return {}
        runs = table["run_id"].to_pylist()
        scores: dict[str, list[float]] = {run_id: [] for run_id in dict.fromkeys(runs)}
        members: dict[str, list[str | None]] = {run_id: [] for run_id in scores}
        for run_id, score, member in zip(
            runs, table["score"].to_pylist(), table["group_id"].to_pylist(), strict=True
        ):
            scores[run_id].append(score)
            members[run_id].append(member)
        return {
            name_of[run_id]: Rows(of, groups=members[run_id] if any(members[run_id]) else None)
            for run_id, of in scores.items()
        }

    def _candidates(self, run: LoggedRun, metric: str, higher_is_better: bool) -> int:
        """From how many runs of one parent a run was selected, if it is the best of them; else 1."""
        if run.parent_run_id is None:
            return 1
        bound = {"metric": metric, "experiment": run.experiment, "parent_run_id": run.parent_run_id}
        with self._asking() as connection:
            rivals = connection.execute(read_sql("postgres/verdicts/rivals.sql"), bound).fetchall()
        return run_samples.was_best(
            run_samples.metric_value(run.value),
            [run_samples.metric_value(value) for _, value in rivals],
            higher_is_better,
        )

    def _require_metric(self, runs: Sequence[LoggedRun], metric: str) -> None:
        """Raises: Refusal: none of the runs has the metric."""
        if any(run.value is not None for run in runs):
            return
        bound = {"run_ids": [run.run_id for run in runs[:1_000]]}
        statement = read_sql("postgres/verdicts/metric_keys.sql")
        with self._asking() as connection:
            known = sorted(key for (key,) in connection.execute(statement, bound).fetchall())
        near = get_close_matches(metric, known, 1)
        which = (
            f"did you mean {near[0]!r}"
            if near
            else f"they have {', '.join(known[:20])}"
            if known
            else "they have none"
        )
        raise Refusal(f"None of {counted(len(runs), 'run')} has a metric {metric!r}: {which}.")

    def _none(self, among: Wanted) -> Refusal:
        """That no run has what is wanted, with the nearest value that runs have."""
        for name, value in among.equal.items():
            bound: dict[str, Any] = {}
            statement = read_sql("postgres/verdicts/values_of_field.sql").format(
                field=run_field(name).sql(bound)
            )
            with self._asking() as connection:
                known = [each for (each,) in connection.execute(statement.encode(), bound).fetchall()]
            if str(value) not in known:
                near = get_close_matches(str(value), known, 1)
                instead = (
                    f"did you mean {name}={near[0]}"
                    if near
                    else f"{name} is {_few(known)} of those there are"
                )
                return Refusal(f"No run has {among}: {instead}.")
        notes = among.search[1].notes() if among.search else ()
        return Refusal(" ".join((f"No run has {str(among) or 'been recorded'}.", *notes)))

    @contextmanager
    def _asking(self) -> "Iterator[Connection]":
        from psycopg.errors import UndefinedTable

        try:
            with self._postgres.connect() as connection:
                yield connection
        except UndefinedTable as fault:
            raise missing_relation(fault, RUNS.table) from fault


def _ids(asked: Runs) -> tuple[str, ...]:
    """The run ids that are named; none where it is said what the runs have.

    Raises:
        Refusal: nothing is named, or what cannot be an id.
    """
    if isinstance(asked, str):
        asked = () if is_condition(asked) else (asked,)
        if not asked:
            return ()
    if isinstance(asked, Mapping):
        if not asked:
            raise Refusal("A group without any condition is all runs: say what its runs have.")
        return ()
    ids = tuple(dict.fromkeys(asked))
    if not ids or not all(isinstance(each, str) and each for each in ids):
        raise Refusal(f"{asked!r} names no run: give an id, a list of ids, or FIELD=VALUE.")
    return tuple(require_text(each, "the id of a run") for each in ids)


def _name(asked: Runs) -> str:
    """What sentences call a group."""
    if not (ids := _ids(asked)):
        return told(asked) if isinstance(asked, Mapping) else str(asked).strip()
    return ", ".join(ids) if len(ids) <= 3 else f"{ids[0]} and {len(ids) - 1} more"


def _few(values: Sequence[str]) -> str:
    return ", ".join(sorted(values)[:10]) + (" ..." if len(values) > 10 else "") or "unknown"


def _require_apart(groups: Mapping[str, Sequence[LoggedRun]]) -> None:
    """Raises: Refusal: a run is in two of the groups."""
    owner: dict[str, str] = {}
    for name, runs in groups.items():
        for run in runs:
            if (other := owner.setdefault(run.run_id, name)) != name:
                raise Refusal(
                    f"The run {run.run_id} is in both {other} and {name}: groups that share runs cannot be compared."
                )
