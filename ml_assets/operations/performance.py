"""Performance as `ml_assets.connect().performance` has it: how models do over time, and what became worse.

What belongs here: one thin method an operation, with the docstring that `help()` shows. How an operation works lies in
a module of its own beside this one.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ml_assets.lib.promotion import Decision
    from ml_assets.operations.performance_alerts import State
    from ml_assets.operations.performance_baselines import Baseline
    from ml_assets.operations.performance_drift import Mode
    from ml_assets.operations.performance_record import Recorder
    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource


class Performance:
    """The performance of the models of one home.

    Args:
        settings: where the stores are.
        resources: by store name, as `ml_assets.resources.store_resources` makes them.
    """

    def __init__(self, settings: Settings, resources: Mapping[str, Any]) -> None:
        self._settings = settings
        self._resources = resources

    @cached_property
    def _clickhouse(self) -> "ClickHouseResource":
        self._settings.require_home("clickhouse")
        return self._resources["clickhouse"]

    @cached_property
    def _postgres(self) -> "PostgresResource":
        self._settings.require_home("postgres")
        return self._resources["postgres"]

    @cached_property
    def _lake(self) -> "DuckLakeResource":
        self._settings.require_home("duckdb", "postgres")
        return self._resources["lake"]

    def pin_baseline(self, model_name: str, first: date, last: date, note: str = "") -> "Baseline":
        """Compare a model's quality, latency and inputs with these days, in place of its first week.

            stack.performance.pin_baseline("digits-forest", date(2026, 11, 2), date(2026, 11, 8), "after the new lamp")

        What is compared already is compared anew when it is rebuilt.

        Args:
            first, last: days, UTC, both of them included.
            note: why.

        Raises:
            Refusal: the last day is before the first, or there are more than 366.
            StoreUnavailable: PostgreSQL does not answer.
        """
        from ml_assets.lib.days import DayRange
        from ml_assets.operations.performance_baselines import pin

        return pin(self._postgres, model_name, DayRange(first, last), note)

    def unpin_baseline(self, model_name: str) -> None:
        """Compare a model with its first week again.

        Raises:
            Refusal: no baseline is pinned for it.
        """
        from ml_assets.operations.performance_baselines import unpin

        unpin(self._postgres, model_name)

    def regressions(
        self, model_name: str | None = None, since: datetime | None = None, open_only: bool = False
    ) -> "pa.Table":
        """What became worse: one row an episode of one metric of one model, the newest first.

            stack.performance.regressions("digits-mlp", open_only=True).to_pandas()[["metric", "change", "description"]]

        Quality is judged by day, latency and memory by hour (docs/performance.md says how, and how often it errs).

        Args:
            model_name: of this model alone; all of them if None.
            since: aware; those that were seen then or later.
            open_only: leave out those that are over.

        Returns:
            The columns of `clickhouse/performance_regressions`, and `state`: open or closed.

        Raises:
            Refusal: a time without a zone, or a model that is not known.
            StoreUnavailable: the table was never materialized, or ClickHouse does not answer.
        """
        from ml_assets.errors import Refusal
        from ml_assets.operations.performance_regressions import regressions

        if since is not None and since.tzinfo is None:
            raise Refusal(f"The time {since.isoformat()} has no time zone: give an aware datetime.")
        return regressions(self._clickhouse, model_name, since, open_only)

    def estimated_accuracy(self, model_name: str, first: date, last: date | None = None) -> "pa.Table":
        """How right a model was, day by day, where nobody knows the truth yet: as its confidence says.

            stack.performance.estimated_accuracy("digits-forest", date(2026, 11, 22))

        The confidence is calibrated on the labelled answers of the model's baseline. Where 90 % of a day's answers are
        labelled, `accuracy` is what the labels say and `source` is `measured`; before that it is the estimate, which the
        labels of that day and of the 7 days before hold to account. Where they contradict it, or the confidence tells
        nothing, `applicable` is false, and `reason` says why.

        Args:
            first, last: days, UTC, both of them included; until today if there is no last one.

        Returns:
            day, model_name, slice (`all` or `model_version`), slice_value, prediction_count, labelled_count,
            estimated_accuracy with its 95 % interval (low, high), applicable, reason, measured_accuracy, accuracy,
            source, and the days of the baseline (reference_first, reference_last, reference_pinned).

        Raises:
            Refusal: the last day is before the first, or nothing is known of the model then; says of which and when.
            StoreUnavailable: ClickHouse does not answer, or the table was never made.
        """
        from ml_assets.errors import Refusal
        from ml_assets.lib.days import DayRange
        from ml_assets.operations.performance_estimates import estimated_accuracy

        until = last or datetime.now(UTC).date()
        if until < first:
            raise Refusal(f"Days end after they begin: {until} is before {first}.")
        return estimated_accuracy(self._clickhouse, model_name, DayRange(first, until))

    @cached_property
    def _recorder(self) -> "Recorder":
        return self.recorder()

    def record(self, events: Any) -> int:
        """Record evaluations and served requests, one or many; returns how many were accepted: all of them.

            stack.performance.record({"kind": "inference", "timestamp": datetime.now(UTC), "model_name": "digits-forest",
                                      "model_version": "3", "inference_time_ms": 4.2})

        Once it returns, the events are on disk. They are landed once there are 100,000 or the first is 30 s old, on
        `flush`, and when the process ends; the graph takes them in from there. What a killed process leaves is landed
        by the next one that records or by `ml-assets refresh`, and events that it was just writing are counted as lost.

        An event counts once, however often it is recorded: by its `event_id` within a day. One without gets an id that
        is made of its content, so that a batch may be sent again; equal events of one batch are different ones. Give
        ids where single requests may be equal in everything, their time included.

        Args:
            events: a mapping, mappings, or anything Arrow (a table, a reader, a data frame): columns of the stream
                `performance`. 10,000 rows of Arrow or more become a landing file at once.

        Raises:
            Refusal: an event has no time, none with a zone, or one that is more than a day ahead; no model, no known
                kind, or a value that is no JSON. None of the batch was recorded then.
            OSError: the disk is full. None of the batch was recorded.
        """
        return self._recorder.record(events)

    def flush(self) -> "Path | None":
        """Land the events that this process has recorded by now; the file, or None if there are none."""
        return self._recorder.flush()

    def recorder(self, max_events: int | None = None, max_seconds: float | None = None) -> "Recorder":
        """Something to record with in other portions than `record` does; `with` lands at the end of its block.

            with stack.performance.recorder(max_seconds=5) as recorder:
                recorder.record(events)

        Args:
            max_events: events at which they are landed; 100,000 if None.
            max_seconds: seconds after which they are landed, counted from the first one; 30 if None.

        Raises:
            Refusal: there is no home, or a limit is not above 0.
        """
        from ml_assets.home import is_home, no_home
        from ml_assets.intake.due import land_abandoned
        from ml_assets.operations.performance_record import MAX_EVENTS, MAX_SECONDS, Recorder

        if not is_home(self._settings.home):
            raise no_home(self._settings.home)
        land_abandoned(self._settings)
        return Recorder(
            self._settings.landing,
            MAX_EVENTS if max_events is None else max_events,
            MAX_SECONDS if max_seconds is None else max_seconds,
        )

    def slow_requests(
        self,
        model_name: str | None = None,
        window: timedelta | str = "7d",
        limit: int = 20,
        until: datetime | None = None,
    ) -> "pa.Table":
        """The slowest single requests, with all that is known of each and where it stands among those of its model.

            stack.performance.slow_requests("digits-forest", "7d")

        Args:
            model_name: of one model; of all if None.
            window: how far to look back, such as `7d` or a timedelta.
            limit: how many, at most.
            until: end of the window, exclusive; now if None.

        Returns:
            event_id, timestamp, model_name, model_version, run_id, dataset, inference_time_ms, batch_size,
            memory_usage_mb, `percentile` (share of the model's requests in the window that were not slower, in
            percent), `times_median` (how many times its model's median that is) and `request_count` (of the model in the
            window).

        Raises:
            Refusal: no such model, with the nearest name; the window or the limit is not above 0, the end has no time
                zone, or events of the window are older than ML_ASSETS_PERFORMANCE_TTL_DAYS.
            StoreUnavailable: no events were ever materialized.
        """
        from ml_assets.operations.performance_slow import slow_requests

        kept_days = self._settings.performance_ttl_days
        return slow_requests(self._clickhouse, model_name, window, limit, until, kept_days)

    def baselines(self) -> "pa.Table":
        """The days that each model is compared with: those that are pinned, or its first week.

        Returns:
            model_name, first, last (days, both included), pinned, pinned_at, note; by model.

        Raises:
            StoreUnavailable: a store does not answer, or no event was rolled up yet.
        """
        from ml_assets.operations.performance_baselines import baseline_table
        from ml_assets.operations.performance_trends import first_days

        with self._clickhouse.client(purpose="baselines of models") as client:
            first = first_days(client)
        return baseline_table(self._postgres, first)

    def trend(
        self,
        model_name: str,
        window: timedelta | str = "30d",
        bucket: timedelta | str = "1d",
        *,
        by: str | None = None,
        until: datetime | None = None,
        exact: bool = False,
    ) -> "pa.Table":
        """How one model did over time, a row a bucket.

            stack.performance.trend("digits-forest", "30d", "1d").to_pandas().set_index("bucket").plot()

        Buckets of an hour or a day are read from rollups and exact. Those of several hours or days are added up from
        sketches, whose quantiles are off by half a percent at most, while all else is exact; `exact` reads the events
        instead, which takes longer. Buckets that are no whole hours are of the events, and exact. Days begin at
        midnight UTC, weeks on Monday.

        Args:
            model_name: the model.
            window: how far to look back, such as `30d` or a timedelta: as many whole buckets as that takes.
            bucket: length of a bucket, such as `15m`, `1h`, `6h`, `1d` or `7d`.
            by: `version` or `dataset`: a row for each of them, too, one after the other; empty text is unknown.
            until: the last bucket is the one that this aware time lies in, or ends; now if None.
            exact: quantiles are to be exact in any bucket.

        Returns:
            bucket (its start, UTC), model_name, model_version or dataset with `by`, evaluation_count, request_count,
            avg_accuracy, avg_f1_score, avg_inference_time_ms, p50_, p95_ and p99_inference_time_ms,
            max_memory_usage_mb, std_accuracy, method (`exact` or `approx`), until (time of the newest event that
            counts in the bucket). A bucket without events has counts of 0 and nulls.

        Raises:
            Refusal: no such model, with the nearest name; a window or bucket that is none; or the events that would have
                to be read are older than ML_ASSETS_PERFORMANCE_TTL_DAYS.
            StoreUnavailable: ClickHouse does not answer, or nothing was rolled up yet.
        """
        from ml_assets.operations.performance_trend import grid, trend

        cells = grid(window, bucket, until)
        with self._clickhouse.client(purpose="trend of a model") as client:
            return trend(client, model_name, cells, by, exact, self._settings.performance_ttl_days)

    def compare_versions(
        self,
        model_name: str,
        versions: Collection[str] | None = None,
        window: timedelta | str = "30d",
        *,
        until: datetime | None = None,
    ) -> "pa.Table":
        """The versions of a model side by side, each compared with the one before it, the oldest first.

            stack.performance.compare_versions("digits-forest", window="14d").to_pandas()

        Counts, means and deviations are exact, quantiles off by half a percent at most. Means are compared by Welch's
        t, p values corrected by Holm for all versions and metrics of the answer. It takes events as independent:
        requests that come in bursts are less so, and a p value near 5 % says little of them.

        Args:
            model_name: the model.
            versions: those that are compared, or one; all of the window if None. Empty text is that of no known version.
            window: how far to look back, such as `30d` or a timedelta: whole hours.
            until: end of the window, aware; now if None.

        Returns:
            model_version, first_hour, until, evaluation_count, request_count; avg_accuracy, avg_f1_score and
            avg_inference_time_ms, each with the 95 % interval `..._low`, `..._high`; p50_, p95_ and
            p99_inference_time_ms, method; compared_with (the version before), `..._difference` and `..._p` of each
            metric, differs (the metrics that differ at 5 %), test, note (what was not tested, and why).

        Raises:
            Refusal: no such model or version, with the nearest name.
            StoreUnavailable: ClickHouse does not answer, or nothing was rolled up yet.
        """
        from ml_assets.operations.performance_trend import grid
        from ml_assets.operations.performance_versions import compare_versions

        cells = grid(window, "1h", until)
        with self._clickhouse.client(purpose="versions of a model") as client:
            return compare_versions(client, model_name, versions, cells)

    def drift(
        self,
        model_name: str | None = None,
        day: date | None = None,
        window: tuple[date, date] | None = None,
        reference: tuple[date, date] | None = None,
        mode: "Mode" = "exact",
        slice: str | None = None,
    ) -> "pa.Table":
        """How far what a model was asked and answered lies from its baseline, feature by feature.

            stack.performance.drift("digits-forest", date(2026, 11, 12))
            stack.performance.drift("digits-forest", window=(date(2026, 11, 10), date(2026, 11, 14)), mode="evidently")

        Numbers are compared by Kolmogorov-Smirnov and Wasserstein, exactly; categories by chi-squared; both by the
        stability index and the Jensen-Shannon distance over bins of the baseline. A `drift` needs a distance that
        matters and a p value that is left after the correction for all that was asked together; see docs/performance.md.

        Args:
            model_name: the model; all models if None.
            day: UTC; the last one of each model if None.
            window: first and last day, taken together, in place of one day.
            reference: first and last day to compare with, in place of the baseline; nothing is pinned by that.
            mode: `exact`, or `evidently` for PSI, Jensen-Shannon, Wasserstein and p as Evidently 0.7 computes them.
            slice: `all` or `model_version`; both if None.

        Returns:
            A row a feature and slice, with the columns of `clickhouse/feature_drift`: from that table if neither window,
            reference nor mode ask for others, else measured now.

        Raises:
            Refusal: there are no predictions of the model, or on these days; a window ends before it begins.
            StoreUnavailable: a store does not answer, or nothing was materialized yet.
        """
        from ml_assets.errors import Refusal
        from ml_assets.lib.days import DayRange
        from ml_assets.operations.performance_drift import drift

        for first, last in (window or (date.min, date.min), reference or (date.min, date.min)):
            if last < first:
                raise Refusal(f"Days go from the first to the last: {last} is before {first}.")
        return drift(
            self._lake,
            self._postgres,
            self._clickhouse,
            model_name,
            DayRange(*window) if window else None,
            DayRange(*reference) if reference else None,
            mode,
            slice,
            day,
        )

    def alerts(
        self, model_name: str | None = None, state: "State | Collection[State] | None" = "open"
    ) -> "pa.Table":
        """What is wrong with models: regressions and drift, each episode of them once.

            stack.performance.alerts().to_pandas()

        Args:
            model_name: of this model alone.
            state: `open`, `snoozed`, `acknowledged` or `closed`, or several of them; None for all.

        Returns:
            The columns of `clickhouse/alerts` with the state of now, those that matter first.

        Raises:
            Refusal: there is no such state.
            StoreUnavailable: PostgreSQL does not answer.
        """
        from ml_assets.operations.performance_alerts import alerts

        states = None if state is None else (state,) if isinstance(state, str) else tuple(state)
        return alerts(self._postgres, model_name, states, datetime.now(UTC))

    def acknowledge(self, alert_id: str, note: str = "") -> dict[str, Any]:
        """Say that you know of an alert: it is neither sent any more nor fails the check, for as long as it goes on.

        Args:
            alert_id: or as much of its beginning as no other has.
            note: what is known of it.

        Returns:
            The alert as it is now.

        Raises:
            Refusal: there is no such alert, or it is over.
        """
        from ml_assets.operations.performance_alerts import acknowledge

        return acknowledge(self._postgres, alert_id, note, datetime.now(UTC))

    def snooze(self, alert_id: str, until: datetime | timedelta | str) -> dict[str, Any]:
        """Let an alert be until a time; if it still goes on then, it is sent and fails the check again.

            stack.performance.snooze("3f2a", "3d")

        Args:
            alert_id: or as much of its beginning as no other has.
            until: a length of time from now such as `3d` or `12h`, or an aware time. A text without a zone is UTC.

        Returns:
            The alert as it is now.

        Raises:
            Refusal: there is no such alert, it is over, or the time is none to come.
        """
        from ml_assets.operations.performance_alerts import snooze

        return snooze(self._postgres, alert_id, until, datetime.now(UTC))

    def gate(self, model_name: str, version: str | None = None, record: bool = False) -> "Decision":
        """Say whether a version of a model may take the place of the one that serves, with the evidence.

            decision = stack.performance.gate("digits-forest")
            decision.promotable, [check.sentence for check in decision.checks]

        It has to pass all of: `drift` (none of its inputs has drifted from the baseline), `regression` (nothing became
        worse since it answers), `quality` (its accuracy is not worse than that of the version with the alias, by a 95 %
        interval), `slice_floors` (ML_ASSETS_PROMOTION_FLOORS), `leakage` (the training set does not leak) and `parity`
        (what is served is what the lake has). A check that cannot be made refuses, unless
        ML_ASSETS_PROMOTION_MAY_MISS names it.

        Args:
            version: the newest one if None.
            record: note the decision in PostgreSQL (`ml_promotions`), and on a yes move the alias that
                ML_ASSETS_PROMOTION_ALIAS names, if it names one, to the version in MLflow.

        Returns:
            `.promotable`, `.checks` (name, passed, judged, value, threshold, sentence), `.evidence` (rows and content
            hash of each table, the lake's version, pins, baseline, settings), `.alias`, `.alias_version`, `.moved`,
            `.notes` and `.recorded`.

        Raises:
            Refusal: the model has no version, or not this one; or the alias moved meanwhile.
            StoreUnavailable: the lake does not answer, or, to record, PostgreSQL or MLflow.
        """
        from ml_assets.operations.performance_gate import Gate, user

        self._settings.require_home()
        gate = Gate(self._settings, self._resources)
        decision = gate.judge(model_name, version)
        return gate.record(decision, user()) if record else decision

    def promotions(self, model_name: str | None = None, most: int = 100) -> "pa.Table":
        """The recorded decisions of the gate, the newest first.

        Args:
            model_name: of this model alone; all of them if None.
            most: rows, at most.

        Returns:
            id, decided_at, decided_by, model_name, model_version, promotable, checks and evidence (JSON), alias and
            moved_from if an alias moved, notes.
        """
        from ml_assets.operations.performance_gate import promotions

        return promotions(self._postgres, model_name, most)

    def report(self, model_name: str, path: Path | str | None = None) -> Path:
        """Write a model's page: quality, latency, drift, calibration, episodes, versions and the gate's verdict.

            stack.performance.report("digits-forest", "digits-forest.html")

        It is one file that asks nothing of any network, of the last 90 days of the model.

        Args:
            path: of the file, in place of one that is there; `reports/model-NAME.html` of the home if None.

        Returns:
            The file.

        Raises:
            Refusal: there is neither an event nor a prediction of the model, or the file cannot be a page.
            StoreUnavailable: a store does not answer.
        """
        from ml_assets.operations.performance_report import write_report

        return write_report(
            self._clickhouse, self._lake, self._postgres, model_name, path, self._settings.reports
        )

    def compare_samples(
        self,
        reference: "Path | str | pa.Table | pd.DataFrame",
        current: "Path | str | pa.Table | pd.DataFrame",
        columns: Collection[str] | None = None,
    ) -> "pa.Table":
        """How far two samples of your own lie apart, column by column: before a model is trained, or served.

            stack.performance.compare_samples("features_of_may.parquet", "features_of_june.parquet")

        Distances and verdicts are those of `drift`. One column is read after the other, in pieces, so that samples may be
        larger than memory. No store is asked.

        Args:
            reference, current: a Parquet or CSV file, or a table in memory.
            columns: those to compare; all of either sample if None.

        Returns:
            A row a column: feature, kind (`number` or `category`), reference_count, current_count, reference_lacking and
            current_lacking (rows without a value, or with one that is no finite number), ks, wasserstein, psi,
            jensen_shannon, chi_squared, p, corrected_p, threshold, state (`drift`, `none`, `too few` or `not judged`)
            and reason.

        Raises:
            Refusal: there is no such file, or it is of another kind.
        """
        from ml_assets.operations.performance_samples import compare_samples

        return compare_samples(reference, current, columns)
