"""Searches over runs: filter and order to pages, and to streams of all runs.

PostgreSQL answers. What asks for a metric at a step is asked of the lake first, where the histories are, and goes on
as the ids of the runs for which it holds.
"""

import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.experiments import RUNS
from ml_assets.errors import Refusal, missing_table
from ml_assets.lib.filters.duckdb import asked_at_steps, runs_at_step, values_at_step
from ml_assets.lib.filters.fields import Attribute, Field, Metric, Param
from ml_assets.lib.filters.parse import parse_filter, parse_order
from ml_assets.lib.filters.postgres import (
    FEW,
    GLANCED_AT,
    MANY,
    METRICS,
    PARAMS,
    WALKED,
    Compiler,
    Cursor,
    Known,
    Probe,
    page_statements,
    probes,
    walk,
)
from ml_assets.lib.filters.tokens import read_token, token
from ml_assets.lib.filters.tree import Leaf, Node, leaves, values
from ml_assets.lib.run_values import number_of
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import pandas as pd
    import psycopg
    import pyarrow as pa

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

LARGEST_PAGE = 10_000
"""Runs of a page, which lies in memory as a whole."""

_STREAMED = 1_000
"""Runs of one batch of a stream."""

_OBJECTS = ("parameters", "metrics", "tags")
_ID = RUNS.key[0]


@dataclass(frozen=True)
class Page:
    """Some of the runs that a search found.

    Args:
        runs: in the order that was asked for; each with its columns, `parameters`, `metrics` and `tags` as mappings and,
            under `values`, the statistics that filter and order name, such as `metrics.loss.best`.
        next_page_token: for the next page; None if there is none.
        fields: those that filter and order name.
        notes: why there may be no run, if there is none: sentences on names and values that no run has.
    """

    runs: list[dict[str, Any]]
    next_page_token: str | None = None
    fields: tuple[Field, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.runs)

    def to_arrow(self) -> "pa.Table":
        """The runs with the columns of `ml_experiments`; parameters, metrics and tags as JSON."""
        import pyarrow as pa

        return pa.Table.from_batches([_batch(self.runs)], _schema())

    def to_columns(self) -> "pa.Table":
        """The runs with a column for each metric, parameter and tag: `metrics.loss`, `params.lr`, `tags.team`."""
        from ml_assets.tables.answers import answered

        columns: dict[str, list[Any]] = {
            name: [run[name] for run in self.runs] for name in _schema().names if name not in _OBJECTS
        }
        for prefix, name in (("metrics", "metrics"), ("params", "parameters"), ("tags", "tags")):
            for key in sorted({key for run in self.runs for key in run[name]}):
                found = [run[name].get(key) for run in self.runs]
                columns[f"{prefix}.{key}"] = [_number(each) for each in found] if name == "metrics" else found
        for key in sorted({key for run in self.runs for key in run["values"]}):
            columns.setdefault(key, [run["values"].get(key) for run in self.runs])
        kinds = {name: _schema().field(name).type for name in columns if name in _schema().names}
        rows = list(zip(*columns.values(), strict=True))
        return answered(list(columns), rows, [kinds.get(name) for name in columns])

    def to_pandas(self) -> "pd.DataFrame":
        """As `to_columns`, which is how MLflow shows runs."""
        return self.to_columns().to_pandas()

    def _repr_html_(self) -> str:
        """What a notebook shows: as many of the runs as pandas shows, or why there are none."""
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"{self.to_pandas().to_html(max_rows=20, max_cols=20, show_dimensions=True)}{notes}"


class Search:
    """One search: all runs of all experiments that a filter lets through, in an order.

    Args:
        postgres: where the runs are.
        lake: gives the resource of the histories, if they have to be asked.
        filter: see docs/experiments.md; empty for all runs.
        order_by: terms such as `metrics.loss.best` or `created_at DESC`; runs without the field come last, ties are
            ordered by id.
        now: what `7d ago` is counted from.

    Raises:
        Refusal: filter or order is wrong.
    """

    def __init__(
        self,
        postgres: "PostgresResource",
        lake: "Callable[[], DuckLakeResource]",
        filter: str = "",
        order_by: str | Iterable[str] = (),
        now: datetime | None = None,
    ) -> None:
        self._postgres, self._lake = postgres, lake
        self.now = now or datetime.now(UTC)
        self._tree = parse_filter(filter, self.now)
        self._order = parse_order(order_by)
        asked = [leaf.field for leaf in leaves(self._tree)]
        self.fields: tuple[Field, ...] = tuple(dict.fromkeys([*(term.field for term in self._order), *asked]))
        self._shown = [each for each in self.fields if isinstance(each, Metric) and each.step is None]
        self._shown_names = list(map(str, self._shown))

    def page(self, limit: int, after: Cursor | None = None) -> tuple[list[dict[str, Any]], Cursor | None]:
        """Up to `limit` runs after another one, and the last of them if there are more.

        Raises:
            StoreUnavailable: a store does not answer, or lacks a table.
        """
        from psycopg.errors import UndefinedTable

        from ml_assets.resources.postgres import read_large_as_doubles

        try:
            with self._postgres.connect() as connection, connection.cursor() as cursor:
                read_large_as_doubles(cursor)
                # One more than asked for tells whether there are more.
                names, rows = self._rows(cursor, limit + 1, after)
        except UndefinedTable as fault:
            missing = next((name for name in (METRICS, PARAMS) if name in str(fault)), RUNS.table)
            raise missing_table(f"postgres/{missing}") from fault
        shown = names.index(_ID) - len(self._shown)
        columns = ["run_id" if name == _ID else name for name in names[shown + len(self._shown) :]]
        runs = [self._run(columns, row, shown) for row in rows[:limit]]
        more = len(rows) > limit
        return runs, Cursor(rows[limit - 1][:shown], runs[-1]["run_id"]) if more else None

    def notes(self) -> tuple[str, ...]:
        """Sentences on what filter and order name and no run has, with the nearest name."""
        metrics = {each.key for each in self._shown}
        params = {each.key for each in self.fields if isinstance(each, Param)}
        return (
            *self._unknown("metric", metrics, "postgres/experiments/metric_keys.sql"),
            *self._unknown("parameter", params, "postgres/experiments/param_keys.sql"),
            *(told for leaf in leaves(self._tree) for told in _no_choices(leaf)),
        )

    def _unknown(self, what: str, asked: set[str], statement: str) -> Iterator[str]:
        if not asked:
            return
        with self._postgres.connect() as connection:
            keys = [key for (key,) in connection.execute(read_sql(statement)).fetchall()]
        for key in sorted(asked.difference(keys)):
            nearest = get_close_matches(key, keys, n=1)
            yield f"No run has a {what} {key!r}{f'; do you mean {nearest[0]!r}?' if nearest else '.'}"

    def condition(self, run: str) -> tuple[str, dict[str, Any]]:
        """The condition that a run is let through, in SQL over `ml_experiments`, and the values to bind.

        Args:
            run: alias of that table.
        """
        compiler = Compiler(self._at_steps)
        return compiler.condition(self._tree, run), compiler.bound.values

    def pages(self) -> Iterator[list[dict[str, Any]]]:
        """All runs, a list after the other, with flat memory. Runs that are added meanwhile shift and repeat none."""
        after: Cursor | None = None
        while True:
            runs, after = self.page(_STREAMED, after)
            yield runs
            if after is None:
                return

    def _run(self, names: Sequence[str], row: Sequence[Any], shown: int) -> dict[str, Any]:
        first = shown + len(self._shown)
        run: dict[str, Any] = dict(zip(names, row[first:], strict=True))
        for name in _OBJECTS:
            if not isinstance(run[name], dict):
                run[name] = {}
        values = zip(self._shown_names, row[shown:first], strict=True)
        run["values"] = {name: value for name, value in values if value is not None}
        return run

    def _rows(
        self, cursor: "psycopg.Cursor", limit: int, after: Cursor | None
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The names of the columns of a page, and its rows."""
        known = self._at_steps
        asked = probes(self._tree, self._order, known)
        several = [probe for probe in asked if probe.others.parts]
        few: dict[Node, list[str] | None] = {}
        for n, probe in enumerate(asked):
            if _counted(cursor, probe, FEW) <= FEW:
                few = {probe.part: None}
                break
            if n == 0 and (page := self._walked(cursor, limit, after, known, GLANCED_AT)):
                return page
        if several and not few:
            if page := self._walked(cursor, limit, after, known, WALKED):
                return page
            few = self._few_together(cursor, several)
        known = replace(known, few=few)
        statements = page_statements(self._tree, self._order, limit, after, known, self._shown)
        return _page(cursor, statements, limit)

    def _walked(
        self, cursor: "psycopg.Cursor", limit: int, after: Cursor | None, known: Known, most: int
    ) -> tuple[list[str], list[tuple[Any, ...]]] | None:
        """A page out of the next runs in their order; None if it is not full, or the order is none of theirs."""
        statement = walk(self._tree, self._order, limit, after, known, self._shown, most)
        if limit > most or statement is None:
            return None
        page = _page(cursor, [statement], limit)
        return page if len(page[1]) == limit else None

    def _few_together(self, cursor: "psycopg.Cursor", asked: Sequence[Probe]) -> dict[Node, list[str] | None]:
        """The filter with the runs for which it holds, if they are few; see `Known.few`."""
        counts = [_counted(cursor, probe, MANY) for probe in asked]
        count, probe = min(zip(counts, asked, strict=True), key=lambda each: each[0])
        if count > MANY:
            return {}
        found = [id for (id,) in _asked(cursor, *probe.joint()).fetchall()]
        return {self._tree: found} if len(found) <= FEW else {}

    @cached_property
    def _at_steps(self) -> Known:
        asked = asked_at_steps(self._tree)
        fields = [term.field for term in self._order]
        ordered = [each for each in fields if isinstance(each, Metric) and each.step is not None]
        runs: dict[Node, list[str]] = {leaf: self._of_lake(*runs_at_step(leaf))[0] for leaf in asked}
        return Known(runs, {metric: self._of_lake(*values_at_step(metric)) for metric in ordered})

    def _of_lake(self, sql: str, bound: Mapping[str, Any]) -> Any:
        import duckdb

        try:
            found = self._lake().reader(sql, bound).read_all()
        except duckdb.CatalogException as fault:
            raise missing_table("duckdb/raw_metrics") from fault
        return tuple(column.to_pylist() for column in found.columns)


@dataclass(frozen=True)
class Runs:
    """All runs of a search, read as they are iterated over, as often as that is done."""

    search: Search = field(repr=False)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The runs as those of a page."""
        for runs in self.search.pages():
            yield from runs

    def batches(self) -> "pa.RecordBatchReader":
        """The runs as a stream of Arrow batches, with the columns of `Page.to_arrow`."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(_schema(), map(_batch, self.search.pages()))


def search_page(
    postgres: "PostgresResource",
    lake: "Callable[[], DuckLakeResource]",
    filter: str,
    order_by: str | Iterable[str],
    limit: int,
    page_token: str | None,
) -> Page:
    """One page of a search; see `Search`.

    Raises:
        Refusal: filter, order or limit is wrong, or the token is none of this search.
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise Refusal(
            f"A page cannot have {limit:,} runs: give a limit from 1 to {LARGEST_PAGE:,}, and take the next pages by "
            "their tokens or all runs from search_all."
        )
    order = [order_by] if isinstance(order_by, str) else list(order_by)
    now, after = read_token(page_token, [filter, *order]) if page_token else (None, None)
    search = Search(postgres, lake, filter, order, now)
    runs, last = search.page(limit, after)
    following = token([filter, *order], search.now, last) if last else None
    return Page(runs, following, search.fields, () if runs or after else search.notes())


def _no_choices(leaf: Leaf) -> Iterator[str]:
    """Sentences on the values of a leaf that its column cannot have."""
    name = leaf.field.name if isinstance(leaf.field, Attribute) else ""
    if name in RUNS.by_name and (choices := RUNS.by_name[name].choices):
        for value in values(leaf):
            if value not in choices:
                yield f"No run has the {name} {value!r}: it is one of {', '.join(choices)}."


def _counted(cursor: "psycopg.Cursor", probe: Probe, most: int) -> int:
    (count,) = _asked(cursor, *probe.count(most)).fetchone() or (0,)
    return count


def _page(
    cursor: "psycopg.Cursor", statements: Iterable[tuple[str, Mapping[str, Any]]], limit: int
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names of the columns and the first rows of one statement after the other, as long as there are too few."""
    names: list[str] = []
    rows: list[tuple[Any, ...]] = []
    for sql, bound in statements:
        _asked(cursor, sql, bound)
        names = [column.name for column in cursor.description or ()]
        rows += cursor.fetchmany(limit - len(rows))
        if len(rows) == limit:
            break
    return names, rows


def _asked(cursor: "psycopg.Cursor", sql: str, bound: Mapping[str, Any]) -> "psycopg.Cursor":
    # Not prepared: a plan for any key serves neither the rare nor the frequent ones.
    return cursor.execute(sql.encode(), bound, prepare=False)


def _schema() -> "pa.Schema":
    from ml_assets.tables.arrow_types import arrow_schema

    schema = arrow_schema(RUNS)
    return schema.set(0, schema.field(0).with_name("run_id"))


def _batch(runs: Sequence[Mapping[str, Any]]) -> "pa.RecordBatch":
    import orjson
    import pyarrow as pa

    def text(document: dict[str, Any]) -> str:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()

    schema = _schema()
    columns = [[text(run[name]) if name in _OBJECTS else run[name] for run in runs] for name in schema.names]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)


def _number(value: Any) -> float | None:
    """A metric of a run's JSON, where NaN and the infinities are text."""
    if isinstance(value, str):
        return math.nan if value.lower() == "nan" else number_of(value)
    return float(value) if isinstance(value, int | float) else None
