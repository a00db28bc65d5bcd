"""Does a frame leak? What its values came from, what its sides share, and what lies between them.

What belongs here: reading the frame and asking the engine. How a finding is told, and where a value came from, is in
lib/leaks.py; which rows are alike in lib/near_duplicates.py.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.feature_files import FeatureFile, feature_files
from ml_assets.errors import Refusal, missing_table
from ml_assets.lib import near_duplicates
from ml_assets.lib.leaks import (
    MOST_EXAMPLES,
    Finding,
    Kind,
    Served,
    Verdict,
    View,
    common_type,
    origins,
    span_of,
)
from ml_assets.lib.near_duplicates import Near
from ml_assets.lib.sql import qualified, quote_identifier, quote_literal
from ml_assets.lib.words import counted
from ml_assets.operations.feature_views import span_text
from ml_assets.settings import Settings

if TYPE_CHECKING:
    import duckdb

    from ml_assets.resources.duckdb import DuckLakeResource

TRAIN, TEST = "train", ("test", "validation", "valid", "val", "eval", "holdout")
"""Values of a split column: of the side that is learned from, and of the sides that it is judged by."""

KNOWN_AT, EVENT_TIMES = "__known_at", ("__event_time", "__event_at")
"""Endings of a frame's columns that say when a view's values were known and from when they held."""

_FRAME = "temp.main.leaks_frame"
_SIDE = "__side"
_FEW_ROWS = 30
"""Rows below which a feature that goes along with the label may do so by chance."""
_EQUAL = 1 - 1e-12
"""Correlation from which a feature is the label in another unit."""
_WORDY = 32
"""Mean length from which a column is text to be compared by its grams; shorter ones are names, compared whole."""
_US = timedelta(microseconds=1)


@dataclass(frozen=True)
class Question:
    """What is asked of a frame; see `Features.verify`."""

    features: str | Sequence[str] | None = None
    label_time: str = "event_timestamp"
    label: str | Sequence[str] = ()
    entity: str | Sequence[str] | None = None
    entities_recur: bool = False
    split: str | None = None
    train: str = TRAIN
    test: str | Sequence[str] = TEST
    embargo: timedelta | str | None = None
    horizon: timedelta | str | None = None
    near_duplicates: bool = True
    aside: Sequence[str] = ()
    """Columns that are neither features nor labels."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """By `view:feature`, the column that holds it, where it is not to be told by its name."""


@dataclass(frozen=True)
class Table:
    """A feature table of the lake, as a frame."""

    name: str


TRAINING_SET = Question(
    features=("model_daily_features:*",),
    label_time="created_at",
    label=("label", "label_accuracy"),
    aside=("label_metric", "label_higher_is_better"),
    entity="run_id",
    split="split",
    embargo=timedelta(days=1),
    horizon="label_known_at",
)
"""What holds for the table `training_set`, as the comment at the top of its file says. What it says of runs before is not
looked up in run_features, where it stands in the row of the run itself: `run_features__known_at` has its time."""

USUAL = {"training_set": TRAINING_SET}
"""What holds for tables of the lake, by name."""


def view_of(file: FeatureFile) -> View:
    """What a check has to know of the view that a file makes."""
    header = file.header
    if header is None or header.event_time is None:
        raise TypeError(f"{file.name} is no view")
    known = header.known_time or header.event_time
    table = qualified("features", file.name)
    return View(file.name, table, header.entity, header.event_time, known, header.ttl)


def verify_frame(
    settings: Settings, lake: "DuckLakeResource", frame: Any, test_frame: Any, given: Mapping[str, Any]
) -> Verdict:
    """Whether a frame, or a feature table of the lake, leaks; see `Features.verify`.

    Args:
        given: fields of a `Question`, in place of what is usual for the frame.
    """
    import duckdb

    files = {file.name: file for file in feature_files(settings)}
    usual = Question()
    if isinstance(frame, str) and frame in {*files, *USUAL} and not Path(frame).exists():
        usual = USUAL.get(frame, usual)
        frame = Table(frame)
    views = [view_of(file) for file in files.values() if file.is_view]
    question = replace(usual, **given)
    with lake.get_connection() as connection, lake.limit(connection, write=True, what="the check for leaks"):
        try:
            return verify(connection, views, frame, question, test_frame)
        except duckdb.CatalogException as fault:
            if isinstance(frame, Table):
                raise missing_table(f"duckdb/{frame.name}") from fault
            raise


def verify(
    connection: "duckdb.DuckDBPyConnection",
    views: Sequence[View],
    frame: Any,
    question: Question,
    test_frame: Any = None,
) -> Verdict:
    """Whether a frame leaks; see `Features.verify`.

    Args:
        connection: has the views' tables, and may make temporary ones.
        views: whose features the frame may hold.
        test_frame: the side that the model is judged by, where it is a frame of its own.

    Raises:
        Refusal: the frame is none, lacks a column that is named, or its label times are no points in time.
    """
    from ml_assets.operations.feature_retrieval import Retrieval

    for given in (test_frame, frame):
        if isinstance(given, Retrieval):
            features = question.features if question.features is not None else tuple(given.features)
            question = replace(question, features=features, columns=given.features)
    refuse_spans(question)
    with _loaded(connection, frame, test_frame) as columns:
        return _Check(connection, views, question, columns, test_frame is not None).verdict()


@contextmanager
def _loaded(connection: "duckdb.DuckDBPyConnection", frame: Any, test_frame: Any) -> Iterator[dict[str, str]]:
    """The frame as a temporary table with its rows numbered from 0; gives its columns and their types."""
    sides = [(frame, None)] if test_frame is None else [(frame, "train"), (test_frame, "test")]
    parts, names, types = [], [], []
    try:
        for n, (given, side) in enumerate(sides):
            name = f"leaks_given_{n}"
            source = _source(connection, name, given, is_side=side is not None)
            names.append(name)
            told = f", {quote_literal(side)} AS {_SIDE}" if side else ""
            parts.append(f"SELECT *{told} FROM {source}")
            described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
            types.append({name.lower(): (name, kind) for name, kind, *_ in described})
        _refuse_unlike(*types)
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE leaks_frame AS "
            f"SELECT row_number() OVER () - 1 AS __row, * FROM ({' UNION ALL BY NAME '.join(parts)})"
        )
        rows = connection.execute(f"DESCRIBE {_FRAME}").fetchall()
        yield {name: kind for name, kind, *_ in rows if name != "__row"}
    finally:
        for name in names:
            connection.unregister(name)
        connection.execute("DROP TABLE IF EXISTS temp.main.leaks_frame")


def _source(connection: "duckdb.DuckDBPyConnection", name: str, given: Any, is_side: bool) -> str:
    """SQL that reads a frame."""
    import duckdb
    import pyarrow as pa

    from ml_assets.operations.feature_frames import frame_in_memory

    if isinstance(given, Table):
        return qualified("features", given.name)
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise Refusal(
                f"There is no file {path}: name a Parquet or CSV file, or give a DataFrame or an Arrow table."
            )
        reader = "read_csv" if path.suffix.lower() == ".csv" else "read_parquet"
        itself = re.sub(r"([*?\[])", r"[\1]", str(path))  # a name, not a pattern
        source = f"{reader}({quote_literal(itself)})"
        try:
            rows = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
            texts = [quote_identifier(name) for name, kind, *_ in rows if kind == "VARCHAR"]
            if is_side and reader == "read_csv" and texts:
                # Without a value it is of no type, not text: the other side says of which it is.
                counts = connection.execute(f"SELECT {', '.join(f'count({c})' for c in texts)} FROM {source}")
                told = zip(texts, counts.fetchall()[0], strict=True)
                empty = [column for column, count in told if count == 0]
                source = f"(SELECT * EXCLUDE ({', '.join(empty)}) FROM {source})" if empty else source
        except duckdb.Error as fault:
            kind = "CSV" if reader == "read_csv" else "Parquet"
            raise Refusal(f"{path} cannot be read as {kind}: name another file ({fault}).") from fault
        return source
    is_stream = isinstance(given, pa.RecordBatchReader)
    if hasattr(given, "reader") and callable(given.reader):  # what was retrieved
        given = given.reader()
    held = frame_in_memory(given, "frame")
    if held is None:
        raise Refusal(
            f"{type(given).__name__} is no frame: give a DataFrame, an Arrow table, or the path of a Parquet file."
        )
    if not held.schema.names:
        raise Refusal("The frame has no column: give one with the label's time and the features.")
    if is_stream and not any(batch.num_rows for batch in held.reader(held.schema.names)):
        # Whether it was read can be told of few readers, and that nothing leaks would be said of any rows.
        raise Refusal(
            "The frame is a RecordBatchReader without a row, as one is that was read already: give a new one, or a Table."
        )
    connection.register(name, held.reader(held.schema.names))
    return name


def _refuse_unlike(train: Mapping[str, tuple[str, str]], *tests: Mapping[str, tuple[str, str]]) -> None:
    """Refuse sides of which a column has other types, which the engine would make one by a guess."""
    for test in tests:
        for key in [key for key in train if key in test]:
            (name, one), (_, other) = train[key], test[key]
            if one != other and _kin(one) != _kin(other) and '"NULL"' not in (one, other):
                raise Refusal(
                    f"The column {name} is {one} in the frame and {other} in the test frame: give both the same type"
                    f"{', times with their zone' if 'TIMESTAMP' in one + other else ''}."
                )


def _kin(kind: str) -> str:
    """Types of one kin can be compared without a loss."""
    if common_type(kind, "DOUBLE") in ("DOUBLE", "FLOAT"):
        return "number"
    if kind in ("VARCHAR", "JSON", "UUID") or kind.startswith("ENUM"):
        return "text"
    return "time" if kind in ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS") else kind


def refuse_spans(question: Question) -> None:
    """Refuse an embargo or horizon that is no length of time, whether or not it comes to be used."""
    for name, given in (("embargo", question.embargo), ("horizon", question.horizon)):
        if name == "horizon" and isinstance(given, str) and not _is_span(given):
            continue  # a column
        span = _span(given)
        if span is not None and span < timedelta():
            raise Refusal(
                f"{name}= cannot be {span}: give a length of time that is not below zero, such as 7d."
            )


class _Check:
    """One examination."""

    def __init__(
        self,
        connection: "duckdb.DuckDBPyConnection",
        views: Sequence[View],
        question: Question,
        columns: Mapping[str, str],
        two_frames: bool,
    ) -> None:
        self._connection = connection
        self._ask = question
        self._columns = columns
        self._views = {view.name: view for view in views}
        self._findings: list[Finding] = []
        self._examined: dict[Kind, str] = {}
        self._notes: list[str] = []
        self._split = _SIDE if two_frames else question.split
        self._labels = _names(question.label)
        named = [question.label_time, *self._labels, *([self._split] if self._split else [])]
        if isinstance(question.horizon, str) and not _is_span(question.horizon):
            named.append(question.horizon)
        for name in [*named, *(_names(question.entity) if question.entity is not None else ())]:
            self._require(name)
        self._time = question.label_time
        self._require_time(self._time)
        self._shared: dict[str, list[tuple[str, Served]]] = {}
        """By column, the views that may be meant by its name, where they are several."""
        self._served = self._serving()

    def verdict(self) -> Verdict:
        """Look for every kind of leak that can be looked for."""
        ((rows,),) = self._rows(f"SELECT count(*) FROM {_FRAME}")
        ((timeless,),) = self._rows(f"SELECT count(*) FROM {_FRAME} WHERE {self._sql(self._time)} IS NULL")
        if timeless:
            raise Refusal(
                f"{counted(timeless, 'row')} of the frame {'has' if timeless == 1 else 'have'} no {self._time}: without "
                "the label's time nobody can say what was known then; leave such rows out."
            )
        self._values()
        self._noted_times()
        splits = self._sides()
        if len(splits) == 2:
            self._entities()
            if self._ask.near_duplicates:
                self._alike()
            self._gap()
        self._is_label()
        if not rows:
            self._notes.append("The frame has no row.")
        return Verdict(
            rows, self._features(), splits, self._examined, tuple(self._findings), tuple(self._notes)
        )

    # Where values came from.

    def _serving(self) -> dict[str, list[Served]]:
        """By view, the columns of the frame that hold its features."""
        types = {name: self._types(view) for name, view in self._views.items()}
        if self._ask.features is None:
            return self._guessed({name: found for name, found in types.items() if found is not None})
        serving: dict[str, list[Served]] = {}
        for asked in _names(self._ask.features):
            name, _, feature = asked.partition(":")
            if name not in types:
                raise Refusal(f"There is no view {name!r}{_nearest(name, types)}")
            if (held := types[name]) is None:
                raise missing_table(f"duckdb/{name}")
            view = self._views[name]
            all_of_it = feature in ("", "*")
            wanted = _features_of(view, held) if all_of_it else [feature]
            others = self._no_features() if all_of_it else set[str | timedelta | None]()
            for each in wanted:
                if each not in held:
                    raise Refusal(f"The view {name} has no feature {each!r}{_nearest(each, held)}")
                named = (self._ask.columns.get(f"{name}:{each}"), f"{name}__{each}", each)
                column = next((c for c in named if c in self._columns and c not in others), None)
                if column is None:
                    if all_of_it:
                        continue
                    raise Refusal(
                        f"The frame has no column {each!r} or '{name}__{each}' that could hold {asked}"
                        f"{_nearest(each, self._columns)}"
                    )
                serving.setdefault(name, []).append(self._column(column, each, held[each]))
            for column in view.entity if serving.get(name) else ():
                self._require(column)
        return serving

    def _no_features(self) -> set[str | timedelta | None]:
        """Columns that are labels, times and the like."""
        ask = self._ask
        return {self._time, ask.horizon, self._split, *self._labels, *ask.aside}

    def _guessed(self, types: Mapping[str, Mapping[str, str]]) -> dict[str, list[Served]]:
        """By their names: `view__feature`, or `feature`; where several views have it, any of them may explain a value."""
        can = [name for name in types if all(each in self._columns for each in self._views[name].entity)]
        entity = {each for name in can for each in self._views[name].entity} | {*_names(self._ask.entity)}
        others = self._no_features() | entity
        serving: dict[str, list[Served]] = {}
        owners: dict[str, list[str]] = {}
        for name in can:
            usual = USUAL.get(name, Question())
            for feature in _features_of(self._views[name], types[name]):
                full = f"{name}__{feature}"
                if full in self._columns:
                    serving.setdefault(name, []).append(self._column(full, feature, types[name][feature]))
                if feature in self._columns and feature not in {*others, usual.split, *usual.aside}:
                    owners.setdefault(feature, []).append(name)
        unclear = dict[tuple[str, ...], list[str]]()
        for feature, names in owners.items():
            if all(f"{name}__{feature}" in self._columns for name in names):
                continue
            # A training set repeats what other views hold, and its rows are known with their labels only.
            sources = [name for name in names if name not in USUAL]
            repeated = {view for name in names if name in USUAL for view in _views_of(USUAL[name])}
            known = tuple(name for name, held in types.items() if feature in held)
            if repeated and len(known) > 1 and not repeated & {*sources}:
                unclear.setdefault(known, []).append(feature)
                continue
            sources = sources or names
            found = [(name, self._column(feature, feature, types[name][feature])) for name in sources]
            if len(found) == 1:
                serving.setdefault(sources[0], []).append(found[0][1])
            else:
                self._shared[feature] = found
        self._note_strange(
            {name: held for name, held in types.items() if name not in can}, {*others, *owners}
        )
        for names, features in unclear.items():
            self._notes.append(
                f"Not held against a view, since {' and '.join(names)} have columns of these names, and which is meant "
                f"cannot be said: {', '.join(features)}. Name the view by features=, such as {names[0]}:{features[0]}."
            )
        return serving

    def _note_strange(
        self, types: Mapping[str, Mapping[str, str]], others: set[str | timedelta | None]
    ) -> None:
        """Name the columns that may be features of views whose entity the frame lacks."""
        for name, held in types.items():
            view = self._views[name]
            named = ((f"{name}__{feature}", feature) for feature in _features_of(view, held))
            found = [
                c for full, bare in named for c in (full, bare) if c in self._columns and c not in others
            ]
            if found:
                lacking = [column for column in view.entity if column not in self._columns]
                self._notes.append(
                    f"Not held against the view {name}, since the frame has no {', '.join(lacking)}: {', '.join(found)}."
                )

    def _column(self, column: str, feature: str, held: str) -> Served:
        return Served(column, feature, common_type(self._columns[column], held))

    def _types(self, view: View) -> dict[str, str] | None:
        """The columns of a view's table; None if no run has made it yet."""
        import duckdb

        try:
            return {name: kind for name, kind, *_ in self._rows(f"DESCRIBE SELECT * FROM {view.relation}")}
        except duckdb.CatalogException:
            return None

    def _values(self) -> None:
        """Hold the values of each view against its rows."""
        told = []
        for name, served in self._served.items():
            view = self._views[name]
            traced, unknown = self._trace("leaks_rows", [(view, served)])
            self._tell_origins([view], served, "leaks_rows", traced)
            if unknown and len(served) > 1:
                # Values of several rows, put together: each feature is looked up by itself.
                among = "__row IN (SELECT __row FROM temp.main.leaks_rows WHERE __origin = 'unknown')"
                strange = set[int]()
                for each in served:
                    self._trace("leaks_feature", [(view, [each])], among)
                    self._tell_origins([view], [each], "leaks_feature", traced)
                    strange.update(
                        row
                        for (row,) in self._rows(
                            "SELECT __row FROM temp.main.leaks_feature WHERE __origin = 'unknown'"
                        )
                    )
                unknown = len(strange)
            self._note_unknown(unknown, traced, f"features of {name}", "the view does")
            told.append(f"{counted(len(served), 'feature')} of {name} in {counted(traced, 'row')}")
        for column, found in self._shared.items():
            views = [self._views[name] for name, _ in found]
            traced, unknown = self._trace(
                "leaks_rows", [(view, [served]) for view, (_, served) in zip(views, found, strict=True)]
            )
            self._tell_origins(views, [found[0][1]], "leaks_rows", traced)
            names = " and ".join(view.name for view in views)
            self._note_unknown(unknown, traced, f"the feature {column} of {names}", "none of them does")
            told.append(f"{column} of {names} in {counted(traced, 'row')}")
        if told:
            self._examined["future"] = "; ".join(told)
            names = dict.fromkeys(
                [*self._served, *(name for found in self._shared.values() for name, _ in found)]
            )
            aging = [name for name in names if self._views[name].ttl is not None]
            self._examined["expired"] = (
                "; ".join(f"{name}, ttl {_told(self._views[name].ttl)}" for name in aging)
                or "no view has a ttl"
            )
        elif not any(name.endswith(KNOWN_AT) for name in self._columns):
            self._notes.append(
                "No column of the frame is known as a feature of a view: when their values were known cannot be said. "
                "Name them by features=."
            )

    def _note_unknown(self, unknown: int, traced: int, what: str, who: str) -> None:
        if unknown:
            self._notes.append(
                f"{counted(unknown, 'row')} of {traced:,} with {what} {'has a value' if unknown == 1 else 'have values'} "
                f"that {who} not hold (now): whether they were known then cannot be said."
            )

    def _trace(
        self, table: str, sources: Sequence[tuple[View, Sequence[Served]]], among: str = ""
    ) -> tuple[int, int]:
        """Make a table of where the values of each row came from; how many rows it has, and of how many nobody knows.

        Args:
            sources: the views that may explain them, of which the one that explains them best does.
        """
        parts = []
        for view, served in sources:
            held = self._types(view) or {}
            entity = {column: held[column] for column in view.entity}
            parts.append(f"({origins(view, served, _FRAME, entity, self._time, among)})")
        best = "list_position(['known', 'expired', 'future', 'unknown'], __origin), __known"
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS FROM ({' UNION ALL '.join(parts)}) "
            f"QUALIFY row_number() OVER (PARTITION BY __row ORDER BY {best}) = 1"
        )
        (counts,) = self._rows(
            f"SELECT count(*), count(*) FILTER (__origin = 'unknown') FROM temp.main.{table}"
        )
        return counts[0], counts[1]

    def _tell_origins(self, views: Sequence[View], served: Sequence[Served], table: str, traced: int) -> None:
        names = ", ".join(each.feature for each in served)
        owners = " and ".join(view.name for view in views)
        if len(views) > 1:
            where, what = served[0].column, f"the feature {names} of {owners}"
        else:
            where = f"{owners}:{names}" if len(served) == 1 else owners
            what = f"the feature {where}" if len(served) == 1 else f"features of {owners} ({names})"
        aged = " or ".join(_told(view.ttl) for view in views if view.ttl is not None)
        entity = dict.fromkeys(column for view in views for column in view.entity)
        kinds: tuple[tuple[Kind, str], ...] = (
            ("future", "became known only after the label's time"),
            ("expired", f"were older than the ttl of {aged} at the label's time"),
        )
        for kind, told in kinds:
            ((count,),) = self._rows(f"SELECT count(*) FROM temp.main.{table} WHERE __origin = '{kind}'")
            if not count:
                continue
            shown = [*entity, self._time, *(each.column for each in served[:6])]
            examples = self._examples(
                shown,
                f"{_FRAME} JOIN temp.main.{table} AS traced USING (__row) WHERE traced.__origin = '{kind}'",
                "traced.__event AS of_time, traced.__known AS known_at",
            )
            examples = [
                {**each, "of_time": _moment(each["of_time"]), "known_at": _moment(each["known_at"])}
                for each in examples
            ]
            self._add(
                kind,
                where,
                count,
                f"{counted(count, 'row')} of {traced:,} with {what} {'holds' if count == 1 else 'hold'} values that "
                f"{told}.",
                examples,
            )

    def _noted_times(self) -> None:
        """Hold the times that the frame itself tells against the label's."""
        at = f"epoch_us({self._sql(self._time)})"
        known = [name for name in self._columns if name.endswith(KNOWN_AT) and self._is_noted(name)]
        for column in known:
            self._compare_time(
                "future", column, f"epoch_us({self._sql(column)}) > {at}", "a time after the label's"
            )
        if known:
            self._also_examined("future", f"the times in {', '.join(known)}")
        for name, view in self._views.items():
            for column in (f"{name}{ending}" for ending in EVENT_TIMES):
                if column not in self._columns or view.ttl is None or not self._is_noted(column):
                    continue
                old = f"epoch_us({self._sql(column)}) < {at} - {view.ttl // _US}"
                self._compare_time(
                    "expired", column, old, f"a time more than {_told(view.ttl)} before the label's"
                )
                self._also_examined("expired", f"the times in {column}")

    def _is_noted(self, column: str) -> bool:
        """Whether a column has any value; one without any may be of any type."""
        ((count,),) = self._rows(f"SELECT count({self._sql(column)}) FROM {_FRAME}")
        return count > 0

    def _compare_time(self, kind: Kind, column: str, condition: str, told: str) -> None:
        self._require_time(column)
        ((count,),) = self._rows(f"SELECT count(*) FROM {_FRAME} WHERE {condition}")
        if count:
            entity = [name for name in self._entity() if name in self._columns]
            examples = self._examples([*entity, self._time, column], f"{_FRAME} WHERE {condition}")
            self._add(
                kind,
                column,
                count,
                f"{counted(count, 'row')} {'has' if count == 1 else 'have'} in {column} {told}.",
                examples,
            )

    def _also_examined(self, kind: Kind, what: str) -> None:
        before = self._examined.get(kind)
        self._examined[kind] = f"{before}; {what}" if before else what

    # What two sides share.

    def _sides(self) -> dict[str, int]:
        """Rows of each side, and the column `side` in the frame."""
        if self._split is None:
            self._notes.append(
                "No split is named (split=, or a second frame): what train and test share was not examined."
            )
            return {}
        column = f"CAST({self._sql(self._split)} AS VARCHAR)"
        train = TRAIN if self._split == _SIDE else self._ask.train
        tests = ["test"] if self._split == _SIDE else _names(self._ask.test)
        listed = ", ".join(quote_literal(each) for each in tests)
        self._connection.execute(f"ALTER TABLE {_FRAME} ADD COLUMN __part VARCHAR")
        self._connection.execute(
            f"UPDATE {_FRAME} SET __part = CASE WHEN {column} = {quote_literal(train)} THEN 'train' "
            f"WHEN {column} IN ({listed}) THEN 'test' END"
        )
        counts = dict(
            self._rows(f"SELECT __part, count(*) FROM {_FRAME} GROUP BY __part ORDER BY __part DESC")
        )
        neither = counts.pop(None, 0)
        if neither and not counts:
            values = [str(v) for (v,) in self._rows(f"SELECT DISTINCT {column} FROM {_FRAME} LIMIT 5")]
            raise Refusal(
                f"No row of the frame is train or test: {self._split} is {', '.join(values)}. Name the values by train= "
                "and test=."
            )
        if neither:
            self._notes.append(f"{counted(neither, 'row')} on neither side ({self._split}) were left aside.")
        if len(counts) == 1:
            ((side, _),) = counts.items()
            self._notes.append(f"All rows are {side}: there is nothing that the sides could share.")
        return counts

    def _entity(self) -> tuple[str, ...]:
        if self._ask.entity is not None:
            return _names(self._ask.entity)
        names = self._served or [name for found in self._shared.values() for name, _ in found]
        return tuple(dict.fromkeys(column for name in names for column in self._views[name].entity))

    def _entities(self) -> None:
        entity = self._entity()
        if self._ask.entities_recur:
            self._notes.append("Entities are meant to be on both sides, as entities_recur=True says.")
            return
        if not entity:
            self._notes.append("No entity is named (entity=): whether one is on both sides was not examined.")
            return
        keys = ", ".join(self._sql(name) for name in entity)
        whole = " AND ".join(f"{self._sql(name)} IS NOT NULL" for name in entity)
        shared = (
            f"SELECT {keys}, count(*) FILTER (__part = 'train') AS in_train, "
            f"count(*) FILTER (__part = 'test') AS in_test "
            f"FROM {_FRAME} WHERE {whole} GROUP BY {keys} HAVING in_train > 0 AND in_test > 0"
        )
        name = ", ".join(entity)
        ((count, rows),) = self._rows(f"SELECT count(*), coalesce(sum(in_test), 0) FROM ({shared})")
        ((all_of_them,),) = self._rows(
            f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM {_FRAME} WHERE {whole} AND __part IS NOT NULL)"
        )
        self._examined["shared entity"] = f"{all_of_them:,} different {name}"
        if count:
            found = self._dicts(f"SELECT * FROM ({shared}) ORDER BY {keys} LIMIT {MOST_EXAMPLES}")
            self._add(
                "shared entity",
                name,
                int(rows),
                f"{counted(count, 'entity', 'entities')} ({name}) of {all_of_them:,} {'is' if count == 1 else 'are'} in "
                f"both train and test, with {counted(int(rows), 'row')} of test.",
                found,
            )

    def _alike(self) -> None:
        """Rows of test near one of train: in all numbers and names at once, and in each column of text."""
        numbers, names, texts, left_out = self._comparable()
        if left_out:
            self._notes.append(f"Not compared for near-duplicates: {', '.join(left_out)}.")
        told = []
        if numbers or names:
            near = self._near_rows(numbers, names)
            told.append(
                f"{counted(len(numbers) + len(names), 'column')} within {near_duplicates.TOLERANCE:g} deviations"
            )
            self._tell_near(
                near, [*numbers, *names], "differ in no feature by more than a thousandth of a deviation"
            )
        for column in texts:
            left, right = (
                [row[0] for row in self._rows(self._ordered(side, self._sql(column)))]
                for side in ("train", "test")
            )
            near = near_duplicates.near_texts(left, right)
            told.append(f"the texts of {column} from {near_duplicates.JACCARD:.0%} in common")
            self._tell_near(
                near, [column], f"share {near_duplicates.JACCARD:.0%} of their text or more ({column})"
            )
        if told:
            self._examined["near duplicate"] = "; ".join(told)

    def _near_rows(self, numbers: Sequence[str], names: Sequence[str]) -> Near:
        import numpy as np

        # Names as numbers so far apart that only equal ones are near; a missing one equals a missing one.
        wanted = [f"CAST({self._number(name)} AS DOUBLE)" for name in numbers]
        wanted += [f"CAST(dense_rank() OVER (ORDER BY {self._sql(name)}) AS DOUBLE)" for name in names]
        listed = ", ".join(f"{sql} AS c{n}" for n, sql in enumerate(wanted))
        found = self._connection.execute(
            f"SELECT __part, {listed} FROM (FROM {_FRAME} WHERE __part IS NOT NULL) ORDER BY __row"
        ).to_arrow_table()
        side = found["__part"].to_numpy(zero_copy_only=False)
        columns = [
            found[f"c{n}"].to_numpy(zero_copy_only=False).astype(np.float64) for n in range(len(wanted))
        ]
        rows = np.column_stack(columns)
        return near_duplicates.near_rows(rows[side == "train"], rows[side == "test"])

    def _number(self, name: str) -> str:
        column = self._sql(name)
        return f"epoch_us({column})" if self._columns[name].startswith(("TIMESTAMP", "DATE")) else column

    def _comparable(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """The features as numbers, names, texts and the rest; what tells every row apart is none of them."""
        numbers, names, texts, rest = [], [], [], []
        for column in self._features():
            kind, sql = self._columns[column], self._sql(column)
            if kind in ("VARCHAR", "JSON") or kind.startswith("ENUM"):
                text = f"CAST({sql} AS VARCHAR)"
                ((rows, different, length, is_prose),) = self._rows(
                    f"SELECT count({sql}), count(DISTINCT {text}), coalesce(avg(length({text})), 0), "
                    f"bool_or(NOT starts_with({text}, '{{')) FROM {_FRAME}"
                )
                # Objects of parameters come again, and may be alike without being copies.
                if length >= _WORDY and is_prose:
                    texts.append(column)
                elif rows > 1 and different > 0.9 * rows:
                    rest.append(f"{column} (an identifier)")
                else:
                    names.append(column)
            elif common_type(kind, "DOUBLE") == "DOUBLE" or kind in ("FLOAT", "BOOLEAN"):
                if "INT" in kind:
                    ((rows, different),) = self._rows(f"SELECT count(*), count(DISTINCT {sql}) FROM {_FRAME}")
                    if rows > 1 and rows == different:
                        rest.append(f"{column} (an identifier)")
                        continue
                numbers.append(column)
            else:
                rest.append(f"{column} ({kind})")
        return numbers, names, texts, rest

    def _tell_near(self, near: Near, columns: Sequence[str], told: str) -> None:
        if near.pairs:
            rows = {
                side: [row for (row,) in self._rows(self._ordered(side, "__row"))]
                for side in ("train", "test")
            }
            shown = [*dict.fromkeys([*self._entity(), self._time]), *columns[:4]]
            examples = []
            for test, train in near.pairs[:MOST_EXAMPLES]:
                one, other = (
                    self._examples(shown, f"{_FRAME} WHERE __row = {rows[side][n]}")[0]
                    for side, n in (("test", test), ("train", train))
                )
                examples.append({**one, **{f"train {name}": value for name, value in other.items()}})
            self._add(
                "near duplicate",
                ", ".join(columns),
                len(near.pairs),
                f"{counted(len(near.pairs), 'row')} of test {'has' if len(near.pairs) == 1 else 'have'} a row of train "
                f"from which they {told}; chance would make {near.by_chance:.2g}.",
                examples,
            )
        elif near.seen:
            self._notes.append(
                f"{counted(near.seen, 'row')} of test {'is' if near.seen == 1 else 'are'} near a row of train in "
                f"{', '.join(columns)}, as chance alone would make {near.by_chance:.2g}: the features are too few or too "
                "coarse to tell copies."
            )

    def _ordered(self, side: str, wanted: str) -> str:
        return f"SELECT {wanted} FROM {_FRAME} WHERE __part = '{side}' ORDER BY __row"

    def _gap(self) -> None:
        """The labels of train against the time of test."""
        horizon, embargo = self._ask.horizon, _span(self._ask.embargo)
        if horizon is None and embargo is None:
            self._notes.append(
                "Neither embargo= nor horizon= is declared: whether labels of train reach into the time of test was not "
                "examined."
            )
            return
        at = f"epoch_us({self._sql(self._time)})"
        if isinstance(horizon, str) and not _is_span(horizon):
            self._require_time(horizon)
            end = f"greatest({at}, coalesce(epoch_us({self._sql(horizon)}), {at}))"
            told = f"the label is known at {horizon}"
        else:
            reach = _span(horizon) or timedelta()
            end, told = f"{at} + {reach // _US}", f"the label reaches {_told(reach)} ahead"
        gap = (embargo or timedelta()) // _US
        (((first, last),)) = self._rows(f"SELECT min({at}), max({end}) FROM {_FRAME} WHERE __part = 'test'")
        into = f"__part = 'train' AND {end} + {gap} > {first} AND {at} < {last} + {gap}"
        # A label that is known at the time of its features reaches nowhere, but its time may not be test's either.
        into = f"({into} OR (__part = 'train' AND {at} BETWEEN {first} AND {last}))"
        ((count, nearest),) = self._rows(f"SELECT count(*), max({end}) FROM {_FRAME} WHERE {into}")
        self._examined["no embargo"] = f"{told}, embargo {_told(embargo)}"
        if count:
            shown = list(dict.fromkeys([*self._entity(), self._time]))
            examples = self._examples(
                shown, f"{_FRAME} WHERE {into}", f"{end} AS label_until", "label_until DESC"
            )
            examples = [{**each, "label_until": _moment(each["label_until"])} for each in examples]
            self._add(
                "no embargo",
                self._time,
                count,
                f"{counted(count, 'row')} of train "
                f"{'has a label that reaches' if count == 1 else 'have labels that reach'} to "
                f"{_moment(nearest):%Y-%m-%dT%H:%M:%SZ} where the test begins at {_moment(first):%Y-%m-%dT%H:%M:%SZ} and "
                f"an embargo of {_told(embargo)} lies before it.",
                examples,
            )

    # Features that are the label.

    def _is_label(self) -> None:
        if not self._labels:
            self._notes.append("No label is named (label=): whether a feature equals it was not examined.")
            return
        features = self._features()
        for label in self._labels:
            for feature in features:
                if (told := self._same(feature, label)) is not None:
                    count, how = told
                    examples = self._examples(
                        [*self._entity(), self._time, feature, label],
                        f"{_FRAME} WHERE {self._sql(feature)} IS NOT NULL AND {self._sql(label)} IS NOT NULL",
                    )
                    self._add(
                        "label",
                        feature,
                        count,
                        f"The feature {feature} {how} the label {label} in all of {counted(count, 'row')}.",
                        examples,
                    )
        self._examined["label"] = f"{counted(len(features), 'feature')} against {', '.join(self._labels)}"

    def _same(self, feature: str, label: str) -> tuple[int, str] | None:
        """How many rows have both, and how the feature tells the label; None if it does not."""
        one, other = self._sql(feature), self._sql(label)
        both = f"FROM {_FRAME} WHERE {one} IS NOT NULL AND {other} IS NOT NULL"
        ((rows, ones, others, pairs),) = self._rows(
            f"SELECT count(*), count(DISTINCT {one}), count(DISTINCT {other}), count(DISTINCT ({one}, {other})) {both}"
        )
        if rows < _FEW_ROWS or ones < 2 or others < 2:
            return None
        if ones == others == pairs and ones <= rows / 2:
            return rows, "stands for"
        if not all(
            common_type(self._columns[name], "DOUBLE") in ("DOUBLE", "FLOAT") for name in (feature, label)
        ):
            return None
        x, y = f"CAST({one} AS DOUBLE)", f"CAST({other} AS DOUBLE)"
        ((finite, correlation),) = self._rows(
            f"SELECT count(*), corr({x}, {y}) {both} AND isfinite({x}) AND isfinite({y})"
        )
        if finite < _FEW_ROWS or correlation is None or not abs(correlation) >= _EQUAL:
            return None
        return finite, f"goes along (correlation {correlation:.12g}) with"

    # The frame.

    def _features(self) -> tuple[str, ...]:
        """The columns that a model may learn from: all but keys, times and labels."""
        others = {*self._no_features(), _SIDE, *self._entity()}
        views = [*self._served, *(name for found in self._shared.values() for name, _ in found)]
        others |= {column for name in views for column in self._views[name].entity}
        return tuple(
            name
            for name, kind in self._columns.items()
            if name not in others
            and not name.endswith((KNOWN_AT, *EVENT_TIMES))
            and not kind.startswith(("TIMESTAMP", "DATE"))
        )

    def _require(self, name: str) -> None:
        if name not in self._columns:
            raise Refusal(f"The frame has no column {name!r}{_nearest(name, self._columns)}")

    def _require_time(self, name: str) -> None:
        kind = self._columns[name]
        if kind != "TIMESTAMP WITH TIME ZONE":
            way_out = (
                f"make its times UTC, such as df[{name!r}].dt.tz_localize('UTC')"
                if kind.startswith("TIMESTAMP")
                else "give points in time with their zone"
            )
            raise Refusal(f"The column {name} of the frame is {kind}, which names no time zone: {way_out}.")

    def _examples(
        self, columns: Iterable[str], source: str, more: str = "", order: str = "__row"
    ) -> list[dict[str, Any]]:
        listed = ", ".join([*(self._sql(name) for name in dict.fromkeys(columns)), *([more] if more else [])])
        return self._dicts(f"SELECT {listed} FROM {source} ORDER BY {order} LIMIT {MOST_EXAMPLES}")

    def _dicts(self, sql: str) -> list[dict[str, Any]]:
        cursor = self._connection.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    @staticmethod
    def _sql(name: str) -> str:
        return quote_identifier(name)

    def _add(
        self, kind: Kind, where: str, count: int, told: str, examples: Sequence[Mapping[str, Any]]
    ) -> None:
        self._findings.append(Finding(kind, where, count, told, tuple(examples)))


def _features_of(view: View, types: Mapping[str, str]) -> list[str]:
    keys = {*view.entity, view.event_time, view.known_time}
    return [name for name in types if name not in keys]


def _views_of(question: Question) -> list[str]:
    return [asked.partition(":")[0] for asked in _names(question.features)]


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f": do you mean {near[0]!r}?" if near else f": there are {', '.join(known)}."


def _is_span(text: str) -> bool:
    try:
        span_of(text)
    except ValueError:
        return False
    return True


def _span(given: timedelta | str | None) -> timedelta | None:
    if not isinstance(given, str):
        return given
    try:
        return span_of(given)
    except ValueError as fault:
        raise Refusal(str(fault)) from fault


def _told(span: timedelta | None) -> str:
    return span_text(span) if span else "0d"


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + microseconds * _US
