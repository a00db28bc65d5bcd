"""Features as they were known at the times of labels: what is asked for, checked and joined, a part at a time.

What belongs here: running the statements of lib/point_in_time.py in the lake, and the sentences for labels that cannot
be. What a row has to be to count for a label is told there.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ml_assets.contracts.feature_files import FeatureFile
from ml_assets.errors import Refusal
from ml_assets.lib import point_in_time
from ml_assets.lib.point_in_time import Keyed, Part, Span, View
from ml_assets.lib.sql import quote_identifier
from ml_assets.operations.feature_frames import Frame, frame_of
from ml_assets.operations.feature_labels import (
    YEARS,
    label_batches,
    load_labels,
    refuse_labels,
    refuse_unfit,
    span_of_labels,
)
from ml_assets.operations.feature_views import column_of, features_of, lake_views, view_file
from ml_assets.tables.arrow_types import stream
from ml_assets.tables.validation import micros

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from ml_assets.resources.duckdb import DuckLakeResource

PART_ROWS = 1_000_000
"""Labels that are looked up at once."""

MOST_CELLS = 40_000_000
"""Values of a view that are sorted at once; entities of larger ones are looked up in parts."""

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Asked:
    """What is wanted of one view.

    Args:
        view: in which it is looked up.
        columns: whose values are wanted.
        outputs: their names in the result.
        places: by entity column, the number n of the labels' `entity_n`.
    """

    view: View
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    places: tuple[int, ...]


class Retrieval:
    """Labels with the features that were known at their times; looked up when they are read, as often as they are.

    All readings give the labels' rows in their order, with all their columns, and after them the features.
    """

    def __init__(
        self,
        lake: "DuckLakeResource",
        frame: Frame,
        entity: Sequence[str],
        time_column: str,
        asked: Sequence[Asked],
        features: pa.Schema,
    ) -> None:
        self._lake = lake
        self._frame = frame
        self._entity = tuple(entity)
        self._time_column = time_column
        self._asked = tuple(asked)
        self._features = features

    def __repr__(self) -> str:
        return f"<Retrieval of {', '.join(self._features.names)}>"

    @property
    def schema(self) -> pa.Schema:
        """The columns of the result."""
        return pa.schema([*self._frame.schema, *self._features])

    def reader(self) -> pa.RecordBatchReader:
        """The rows as a stream, in flat memory whatever their number. All are of one version of the lake."""
        return stream(self.schema, self._batches())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The stream for whatever reads Arrow: `polars.DataFrame(retrieval)`, `duckdb.sql("FROM retrieval")`."""
        return self.reader().__arrow_c_stream__(requested_schema)

    def table(self) -> pa.Table:
        """All rows at once."""
        return self.reader().read_all()

    def pandas(self) -> "pd.DataFrame":
        """All rows as a DataFrame with a new index."""
        return self.table().to_pandas()

    def export(self, path: Path | str, overwrite: bool = False) -> int:
        """Write the rows to a file, a batch at a time: Parquet, CSV or a DuckDB file, as its ending says.

        Returns:
            how many rows.

        Raises:
            Refusal: another ending, no such folder, or a file that is there and may not be replaced.
        """
        from ml_assets.tables.export import export

        return export(self.reader, "features", Path(path), overwrite)

    def to_parquet(self, path: Path | str, overwrite: bool = False) -> int:
        """Write the rows to a Parquet file, as a whole or not at all, in flat memory; see `export`."""
        if Path(path).suffix.lower() != ".parquet":
            raise Refusal(f"{path} is to be a Parquet file: let its name end in .parquet, or use export().")
        return self.export(path, overwrite)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with self._lake.get_connection() as connection:
            # Where DuckDB expects few labels it would look at every pair of a label and a row.
            connection.execute("SET SESSION asof_loop_join_threshold = 0")
            # One version of the lake for all statements, by its number: within a transaction DuckDB keeps the memory of
            # temporary tables that are dropped. Maintenance leaves the version alone for ML_ASSETS_RETENTION_DAYS.
            ((version,),) = connection.execute("SELECT id FROM lake.current_snapshot()").fetchall()
            asked = [replace(each, view=_at(each.view, version)) for each in self._asked]
            for part in self._frame.parts(PART_ROWS):
                yield from self._joined(connection, part, asked)

    def _joined(
        self, connection: "duckdb.DuckDBPyConnection", part: pa.Table, every: Sequence[Asked]
    ) -> Iterator[pa.RecordBatch]:
        with self._limit(connection):
            batches = label_batches(part.to_batches(), part.schema, self._time_column, self._entity)
            load_labels(connection, batches, _entity_types(every, self._entity))
            span = span_of_labels(connection)
            keyed = {places: _keyed(connection, places) for places in {asked.places for asked in every}}
            found = [
                self._found(connection, n, asked, keyed[asked.places], span) for n, asked in enumerate(every)
            ]
            sql = point_in_time.joined_statement([asked.outputs for asked in every], found)
            joined = connection.execute(sql).to_arrow_reader(BATCH_ROWS)
        place = 0
        while True:
            with self._limit(connection):
                batch = next(joined, None)
            if batch is None:
                break
            given = part.slice(place, batch.num_rows).combine_chunks()
            place += batch.num_rows
            columns = [_whole(column) for column in given.columns] + batch.columns
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
        # The next part finds the memory free.
        for relation in (*found, *(each for names in keyed.values() for each in names), point_in_time.LABELS):
            connection.execute(f"DROP TABLE {relation}")

    def _found(
        self, connection: "duckdb.DuckDBPyConnection", number: int, asked: Asked, keyed: Keyed, span: Span
    ) -> str:
        """Look one view up into a temporary table, in as many parts as memory wants."""
        relation = f"found_{number}"
        rows = connection.execute(*point_in_time.count_statement(asked.view, span)).fetchall()[0][0]
        width = len(asked.view.entity) + len(asked.columns) + len(asked.view.rest) + 2
        count = -(-rows * width // MOST_CELLS)
        parts = [Part(n, count) for n in range(count)] if count > 1 else [None]
        for place, part in enumerate(parts):
            sql, values = point_in_time.found_statement(asked.view, asked.columns, keyed, span, part)
            begin = f"INSERT INTO {relation}" if place else f"CREATE TEMP TABLE {relation} AS"
            connection.execute(f"{begin} {sql}", values)
        return relation

    @contextmanager
    def _limit(self, connection: "duckdb.DuckDBPyConnection") -> Iterator[None]:
        # As many rows as a write's may be looked up.
        with self._lake.limit(connection, write=True, what="looking features up"):
            yield

    @property
    def features(self) -> dict[str, str]:
        """By `view:feature`, in their order, the column of the result that holds it; times are left out."""
        return {
            f"{asked.view.name}:{column}": output
            for asked in self._asked
            for column, output in zip(asked.columns, asked.outputs, strict=True)
            if column not in (asked.view.event_time, asked.view.known_time)
        }


def _at(view: View, version: int) -> View:
    """The view as it stands in a version of the lake."""
    return replace(view, relation=f"{view.relation} AT (VERSION => {version:d})")


def _keyed(connection: "duckdb.DuckDBPyConnection", places: Sequence[int]) -> Keyed:
    """The labels with a number for each entity, of views that are looked up by these columns."""
    name = "_".join(map(str, places))
    keyed = Keyed(f"entities_{name}", f"labels_{name}")
    entities = point_in_time.entities_statement(places)
    connection.execute(f"CREATE TEMP TABLE {keyed.entities} AS {entities}")
    labels = point_in_time.keyed_statement(places, keyed.entities)
    connection.execute(f"CREATE TEMP TABLE {keyed.labels} AS {labels}")
    return keyed


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def historical(
    lake: "DuckLakeResource",
    files: Sequence[FeatureFile],
    entity_df: Any,
    features: str | Sequence[str],
    time_column: str,
    start: datetime | date | str | None = None,
    end: datetime | date | str | None = None,
    full_feature_names: bool = False,
    times: bool = False,
    allow_duplicates: bool = False,
) -> Retrieval:
    """See `Features.historical`.

    Args:
        files: in which the views are looked for.
    """
    if entity_df is not None and (start is not None or end is not None):
        raise Refusal(
            "An entity frame names its times itself: give either the frame, or start and end without one."
        )
    wanted = _wanted(files, features)
    with lake.get_connection() as connection:
        views = lake_views(connection, [view_file(files, name) for name in wanted])
        columns = [_columns(view, names) for view, names in zip(views, wanted.values(), strict=True)]
        outputs = _outputs(views, columns, full_feature_names)
        if times:
            columns, outputs = _with_times(views, columns, outputs)
        fields = _arrow_schema(connection, views, columns)
    given = entity_df if entity_df is not None else _all_entities(lake, views, time_column, start, end)
    frame = frame_of(given, lake)
    entity = list(dict.fromkeys(name for view in views for name in view.entity))
    asked = [
        Asked(view, tuple(names), tuple(told), tuple(entity.index(name) for name in view.entity))
        for view, names, told in zip(views, columns, outputs, strict=True)
    ]
    names = [name for told in outputs for name in told]
    schema = pa.schema([field.with_name(name) for field, name in zip(fields, names, strict=True)])
    refuse_unfit(frame, views, names, time_column)
    with lake.get_connection() as connection, lake.limit(connection, write=True, what="reading the labels"):
        batches = label_batches(
            frame.reader([*dict.fromkeys([time_column, *entity])]), frame.schema, time_column, entity
        )
        load_labels(connection, batches, _entity_types(asked, entity))
        refuse_labels(connection, time_column, entity, allow_duplicates)
    return Retrieval(lake, frame, entity, time_column, asked, schema)


def _wanted(files: Sequence[FeatureFile], features: str | Sequence[str]) -> dict[str, list[str]]:
    """By view the names of the features, in the order in which they were asked for."""
    wanted: dict[str, list[str]] = {}
    for each in [features] if isinstance(features, str) else list(features):
        view, colon, feature = each.partition(":")
        if not view or (colon and not feature):
            raise Refusal(f"{each!r} names no feature: write VIEW:FEATURE, or VIEW:* for all of a view.")
        wanted.setdefault(view, []).append(feature or "*")
    if not wanted:
        raise Refusal(
            "No feature is asked for: name at least one as VIEW:FEATURE, or VIEW:* for all of a view."
        )
    return wanted


def _columns(view: View, names: Sequence[str]) -> list[str]:
    if "*" in names and not features_of(view):
        raise Refusal(
            f"The view {view.name!r} has no features but its entity and times: name one of those, such as "
            f"{view.name}:{view.event_time}."
        )
    meant = (features_of(view) if name == "*" else (column_of(view, name),) for name in names)
    return list(dict.fromkeys(column for columns in meant for column in columns))


def _outputs(
    views: Sequence[View], columns: Sequence[Sequence[str]], full_feature_names: bool
) -> list[list[str]]:
    """The names of the result's columns: with the view's where it was asked for or several have a feature of the name."""
    counts = Counter(name.lower() for names in columns for name in names)
    return [
        [f"{view.name}__{name}" if full_feature_names or counts[name.lower()] > 1 else name for name in names]
        for view, names in zip(views, columns, strict=True)
    ]


def _with_times(
    views: Sequence[View], columns: Sequence[list[str]], outputs: Sequence[list[str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """With the times of the rows that the values are of."""
    read = [
        [*names, view.event_time, view.known_time or view.event_time]
        for view, names in zip(views, columns, strict=True)
    ]
    told = [
        [*names, f"{view.name}__event_at", f"{view.name}__known_at"]
        for view, names in zip(views, outputs, strict=True)
    ]
    return read, told


def _arrow_schema(
    connection: "duckdb.DuckDBPyConnection", views: Sequence[View], columns: Sequence[Sequence[str]]
) -> list[pa.Field]:
    """The types of the wanted columns, in their order."""
    found: list[pa.Field] = []
    for view, names in zip(views, columns, strict=True):
        chosen = ", ".join(f"{quote_identifier(name)} AS value_{n}" for n, name in enumerate(names))
        found += connection.execute(f"SELECT {chosen} FROM {view.relation} LIMIT 0").to_arrow_table().schema
    return found


def _entity_types(asked: Sequence[Asked], entity: Sequence[str]) -> list[str]:
    types = {name: each.view.types[name] for each in reversed(asked) for name in each.view.entity}
    return [types[name] for name in entity]


def _all_entities(
    lake: "DuckLakeResource",
    views: Sequence[View],
    time_column: str,
    start: datetime | date | str | None,
    end: datetime | date | str | None,
) -> pa.RecordBatchReader:
    """Every entity of the views at each time at which something new was known of it."""
    first = views[0]
    for view in views[1:]:
        if view.entity != first.entity:
            raise Refusal(
                f"Without an entity frame the views need to be of the same entity: {first.name!r} is of "
                f"{', '.join(first.entity)}, {view.name!r} of {', '.join(view.entity)}; ask for them one by one, or give "
                "a frame."
            )
        for name in first.entity:
            if view.types[name] != first.types[name]:
                raise Refusal(
                    f"Without an entity frame the views need to be of the same entity: {name!r} is "
                    f"{first.types[name]} in {first.name!r} and {view.types[name]} in {view.name!r}; let their "
                    "SELECTs make it one type."
                )
    span = Span(
        YEARS.first_us if start is None else _given_time("start", start),
        micros(datetime.now(UTC)) if end is None else _given_time("end", end),
    )
    if span.first_us >= span.last_us:
        raise Refusal(
            f"There is no time from start ({start}) to end ({end}): give a later end; it is not included."
        )
    sql, values = point_in_time.moments_statement(views, span)
    found = lake.reader(sql, values, bulk=True)
    names = [*first.entity, time_column]
    renamed = pa.schema([field.with_name(name) for field, name in zip(found.schema, names, strict=True)])
    return stream(renamed, (batch.rename_columns(names) for batch in found))


def _given_time(name: str, value: datetime | date | str) -> int:
    if isinstance(value, str):
        try:
            value = (
                datetime.fromisoformat(value) if len(value) > len("2026-01-31") else date.fromisoformat(value)
            )
        except ValueError:
            raise Refusal(
                f"{name} cannot be {value!r}: write it as 2026-01-31 or 2026-01-31T09:30:00Z."
            ) from None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        raise Refusal(
            f"{name} is {value.isoformat()}, without a time zone: write {value.isoformat()}Z if it is UTC."
        )
    return micros(value)
