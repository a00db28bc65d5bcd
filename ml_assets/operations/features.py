"""Features as `ml_assets.connect().features` has them: which there are, and their values at the times that are asked for.

What belongs here: one thin method an operation, with the docstring that `help()` shows. How an operation works lies in
a module of its own beside this one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from ml_assets.lib.leaks import Verdict
    from ml_assets.operations.feature_online import Online, OnlineFeatures
    from ml_assets.operations.feature_rebuild import Rebuilt
    from ml_assets.operations.feature_retrieval import Retrieval
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.stores.duckdb.pins import Pin


class Features:
    """The feature tables of one home.

    Args:
        settings: where the stores and the feature files are.
        resources: by store name, as `ml_assets.resources.store_resources` makes them.
    """

    def __init__(self, settings: Settings, resources: Mapping[str, Any]) -> None:
        self._settings = settings
        self._resources = resources

    @cached_property
    def _lake(self) -> "DuckLakeResource":
        self._settings.require_home("duckdb", "postgres")
        return self._resources["lake"]

    def views(self) -> "pa.Table":
        """The feature views: the files whose rows can be joined to an entity at a time (docs/features.md).

        Returns:
            view, entity (its columns), event_time, known_time, ttl (a text such as `30d`, null if values never grow too
            old), online, owner, tags, description.
        """
        from ml_assets.operations.feature_views import views

        return views(self._settings)

    def as_of(self, table: str, time: datetime | str) -> "pa.RecordBatchReader":
        """The rows of a table of the lake as they stood at a time.

            stack.features.as_of("run_features", "2026-11-29T13:00:00Z").read_all().to_pandas()

        Every time within ML_ASSETS_RETENTION_DAYS can be read, and before that the versions that are pinned.

        Args:
            table: `run_features`, or any other table of the lake.
            time: aware, or a text with its zone.

        Returns:
            The rows as a stream of Arrow batches, whatever their number.

        Raises:
            Refusal: a time without a zone; a version that was cleaned up, with the oldest time that can be read; or a
                table that was not there then.
            StoreUnavailable: the lake does not answer.
        """
        from ml_assets.operations.feature_pins import as_of

        return as_of(self._lake, table, time)

    def pin(self, name: str, tables: Collection[str] | None = None, run_id: str | None = None) -> "Pin":
        """Keep the lake as it stands now readable by a name, whatever maintenance does, with the feature files of today.

        Args:
            name: of the pin; no other one has it.
            tables: whose rows and content hashes are noted; all of the lake's if None. The whole lake is kept anyway.
            run_id: the run that it is made for. A run of MLflow's gets the tags `ml_assets.pin`, which is the name, and
                `ml_assets.pin_version`.

        Returns:
            Its name, version, times and the tables' rows and content hashes.

        Raises:
            Refusal: the name is taken, or there is no such table.
            StoreUnavailable: the lake or MLflow does not answer; nothing is pinned then.
        """
        from ml_assets.contracts.feature_files import feature_files
        from ml_assets.operations.feature_pins import make_pin

        files = {file.name: file.text for file in feature_files(self._settings)}
        rules = self._settings.metric_rules
        return make_pin(self._lake, self._resources["mlflow"], name, tables, files, rules, run_id)

    def pins(self) -> "pa.Table":
        """The pins, the oldest version first: name, version, as_of, pinned_at, run_id and how many tables were noted."""
        from ml_assets.operations.feature_pins import pin_table

        return pin_table(self._lake)

    def unpin(self, name: str) -> None:
        """Let a pin go: its version stays as long as any other one.

        Raises:
            Refusal: there is no pin of this name.
        """
        from ml_assets.operations.feature_pins import unpin

        unpin(self._lake, name)

    def pinned(self, name: str, table: str) -> "pa.RecordBatchReader":
        """The rows of a table as a pin keeps them: what a run that is trained again reads.

        Args:
            name: of the pin, which the tag `ml_assets.pin` of its run says.
            table: any table that the lake had then.

        Raises:
            Refusal: there is no pin of this name, or no such table in it.
        """
        from ml_assets.operations.feature_pins import pinned

        return pinned(self._lake, name, table)

    def rebuild(
        self, name: str, table: str | None = None, out: "Path | str | None" = None, overwrite: bool = False
    ) -> "Rebuilt":
        """Make a feature table again from the inputs and the SQL file that a pin keeps, and compare it hash for hash.

        Args:
            name: of the pin.
            table: a feature table; `training_set` if None.
            out: file to write the rows to: .parquet, .csv or .duckdb.
            overwrite: replace a file that is there, as a whole.

        Returns:
            `.equal`, or `.differences` as sentences; `str()` of it tells both.

        Raises:
            Refusal: there is no pin of this name, or it keeps no file for the table.
        """
        from pathlib import Path

        from ml_assets.operations.feature_rebuild import rebuild

        return rebuild(self._lake, name, table, None if out is None else Path(out), overwrite)

    def describe(self, view: str) -> "pa.Table":
        """The columns of a view.

        Returns:
            column, type (as the lake has it), role (`entity`, `event time`, `known time`, `key`, else `feature`),
            description, sources (the columns that it is made of, such as `duckdb/raw_runs.status`).

        Raises:
            Refusal: there is no such view.
            StoreUnavailable: its table was never made, or the lake does not answer.
        """
        from ml_assets.operations.feature_views import describe

        return describe(self._settings, self._lake, view)

    def historical(
        self,
        entity_df: Any,
        features: str | Sequence[str],
        time_column: str = "event_timestamp",
        *,
        start: datetime | date | str | None = None,
        end: datetime | date | str | None = None,
        full_feature_names: bool = False,
        times: bool = False,
        allow_duplicates: bool = False,
    ) -> "Retrieval":
        """The values of features as they were known at the times of labels: training data that knows no future.

        For each label, which is a row of the entity frame, the newest row of a view is taken

        - whose entity columns are those of the label (a null is nobody's),
        - whose event time is not after the label's time, and at most the view's `ttl` before it,
        - whose known time is not after the label's time either: it could be read then.

        The newest is the one of the last event time; of several of that time the one that was known last, and of those
        the one that is greatest by the rest of the table's key. A label that finds none stays, with nulls. The rows keep
        their order and all their columns; the features come after them, each called as in its view, or
        `VIEW__FEATURE` where several of the views have one of that name.

        Args:
            entity_df: the labels: a DataFrame of pandas or polars, a pyarrow Table or RecordBatchReader, the path of a
                Parquet or CSV file, or a SELECT over the lake; with the entity columns of the views. None for all
                entities: each is a label at every moment in [start, end) at which a row of it became known.
            features: such as `["run_features:accuracy", "model_daily_features:*"]`.
            time_column: the column of the labels' times, which have a time zone.
            start, end: without an entity frame, from when to when; from the beginning and until now if they are None.
                A text such as `2026-01-31` or `2026-01-31T09:30:00Z` will do.
            full_feature_names: call every feature `VIEW__FEATURE`.
            times: add `VIEW__event_at` and `VIEW__known_at`, the times of the row that the values are of.
            allow_duplicates: take labels of the same entity at the same time, which are refused else.

        Returns:
            an object that looks the values up when it is read: `.reader()` (a stream of Arrow batches, in flat
            memory), `.table()`, `.pandas()`, `.to_parquet(path)`, `.export(path)`; polars and DuckDB read it as it is.

        Raises:
            Refusal: a view, feature or column does not exist, or the frame cannot be labels: one sentence says what is
                wrong in which row, and the way out.
            StoreUnavailable: a view's table was never made, or the lake does not answer.
        """
        from ml_assets.contracts.feature_files import feature_files
        from ml_assets.operations.feature_retrieval import historical

        return historical(
            self._lake,
            feature_files(self._settings),
            entity_df,
            features,
            time_column,
            start,
            end,
            full_feature_names,
            times,
            allow_duplicates,
        )

    def verify(
        self,
        frame: Any,
        features: str | Sequence[str] | None = None,
        *,
        test_frame: Any = None,
        label_time: str | None = None,
        label: str | Sequence[str] | None = None,
        entity: str | Sequence[str] | None = None,
        entities_recur: bool = False,
        split: str | None = None,
        train: str | None = None,
        test: str | Sequence[str] | None = None,
        embargo: timedelta | str | None = None,
        horizon: timedelta | str | None = None,
        near_duplicates: bool = True,
    ) -> "Verdict":
        """Say whether a frame leaks: whether a model that learns from it knows what it could not know, or is tested on
        what it has seen.

            verdict = stack.features.verify(df, label_time="event_timestamp", label="churned", split="side", embargo="7d")
            verdict.ok, verdict.findings
            verdict.raise_for_leaks()

        Six kinds of leak are looked for, and the verdict says which of them could be: features that were known only
        after the label's time, or were older than their view's TTL then; an entity in both train and test; rows of test
        that almost stand in train; labels of train that reach into the time of test; a feature that is the label.

        Where a value came from is looked up in the views as they are now, not by retrieving it again: if a row of the
        entity with these values was known by then, and young enough, it explains them.

        Args:
            frame: a DataFrame, an Arrow table, what `historical` gave, the path of a Parquet or CSV file, or the name of
                a feature table such as `training_set`, for which all that follows is set.
            features: which of its columns are features of which view, as `view:feature` or `view:*`; if None, what was
                retrieved, or columns named `view__feature` or `feature`, of views whose entity the frame has. Where
                several have it, a value that any of them explains is no leak.
            test_frame: what the model is tested on, if it is a frame of its own; then `frame` is what it learns from.
            label_time: column of the label's time, UTC; `event_timestamp` unless given.
            label: the column of the label, or columns.
            entity: columns that name what a row is about; if None, the entity columns of its views.
            entities_recur: entities are meant to be on both sides, since the split is by time.
            split: column that says which side a row is on.
            train: its value for the side that is learned from, `train` unless given.
            test: its values for the other side; unless given, `test`, `validation`, `valid`, `val`, `eval`, `holdout`.
                Rows with any other value are left aside.
            embargo: the least time between the labels of train and test, such as `7d`.
            horizon: how long after its time a label is made up, such as `28d`, or the column of the time when it was.
            near_duplicates: look for rows of test that are nearly rows of train: by no feature more than a thousandth of
                a standard deviation apart, or with four fifths of a text in common, and more of them than chance makes.

        Raises:
            Refusal: the frame is none, lacks a column, or has times without a zone or none at all.
            StoreUnavailable: the lake does not answer, or a table that is named was never made.
        """
        from ml_assets.operations.feature_leaks import verify_frame

        given = {
            "features": features,
            "label_time": label_time,
            "label": label,
            "entity": entity,
            "entities_recur": entities_recur,
            "split": split,
            "train": train,
            "test": test,
            "embargo": embargo,
            "horizon": horizon,
            "near_duplicates": near_duplicates,
        }
        asked = {name: value for name, value in given.items() if value is not None}
        return verify_frame(self._settings, self._lake, frame, test_frame, asked)

    @cached_property
    def _online(self) -> "Online":
        from ml_assets.contracts.feature_files import feature_files
        from ml_assets.operations.feature_online import Online

        self._settings.require_home("redis", "postgres")

        def known() -> list[str]:
            return [file.name for file in feature_files(self._settings) if file.header and file.header.online]

        redis, postgres = self._resources["redis"], self._resources["postgres"]
        return Online(redis, postgres, known, self._settings.serving_log_share)

    def online(
        self,
        entities: "Iterable[Mapping[str, Any]] | Mapping[str, Any] | pa.Table | pd.DataFrame",
        features: str | Sequence[str],
    ) -> "OnlineFeatures":
        """The newest features of entities, for an application that serves a model: in a millisecond, from Redis.

        All views of all entities are read in one round trip. What Redis does not have, and all while it is away, is
        read from PostgreSQL. A share of the requests (ML_ASSETS_SERVING_LOG_SHARE) is logged in the table
        `served_features` and compared with what a model would be trained on. Keep the `Features` object: it keeps
        connections, and what it knows of the views. Threads may share it.

        Args:
            entities: dicts of the columns that the views are looked up by, such as `[{"model_name": "cats"}]`; or a
                dict of lists, a DataFrame or an Arrow table. Other columns are carried along.
            features: such as `["run_quality:accuracy", "latency:*"]`; a view's name alone is all of it. Where two views
                have a feature of one name, both are called `view__feature`, as is a feature that is called like a
                column that another view is looked up by.

        Returns:
            A list with a row an entity, in their order. A row has `.entity`, `.values` (by feature; None for an entity
            that is not known, or whose row is older than the view's TTL) and `.views`: by view `served_from` (`redis`,
            `postgres` or `none`), `event_timestamp` and `age_s`. The list has `.to_pandas()` and `.to_arrow()`.

        Raises:
            Refusal: there is no such view or feature, or an entity lacks a column, or has an impossible value there.
            StoreUnavailable: neither Redis nor PostgreSQL answers.
        """
        return self._online.read(entities, features)
