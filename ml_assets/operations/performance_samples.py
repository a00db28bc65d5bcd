"""Two samples, column by column: how far they lie apart, whatever table or file they are in.

What belongs here: reading them. The engine reads one column after the other, in pieces; lib/drift_grid.py counts what it
reads, and lib/drift.py says what the distances mean.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import Refusal
from ml_assets.lib.drift import (
    Distances,
    Measured,
    chi_squared,
    distances,
    jensen_shannon,
    ks_p,
    lacking_ps,
    psi,
    unresolved,
    verdicts,
)
from ml_assets.lib.drift_grid import Grid, grid_over, of_values
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.operations.performance_drift import BINS, CATEGORIES
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

_SAMPLED_PERCENT = 2

_PIECE = 122_880
"""Values that are read at a time: as many as the engine keeps together, and few enough for a processor's cache."""


_LOOKED_AT = 10_000
"""Values that tell where most of a column lies."""

_KEPT = 4_000_000
"""Values of a sample that are kept in memory rather than read twice."""


_READERS = {".parquet": "read_parquet", ".csv": "read_csv"}

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "UTINYINT")
_NUMBERS = (*_NUMBERS, "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
_CATEGORIES = ("VARCHAR", "BOOLEAN", "ENUM")


def compare_samples(
    reference: "Path | str | pa.Table | pd.DataFrame",
    current: "Path | str | pa.Table | pd.DataFrame",
    columns: Collection[str] | None = None,
) -> "pa.Table":
    """See `Performance.compare_samples`."""
    import duckdb
    import pyarrow as pa

    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        names = [_relation(connection, name, each) for name, each in (("r", reference), ("c", current))]
        kinds = [_kinds(connection, each) for each in names]
        rows = [_rows(connection, each) for each in names]
        wanted = list(columns if columns is not None else dict.fromkeys([*kinds[0], *kinds[1]]))
        measured = [
            _measured(connection, names[0], names[1], each, [kind.get(each) for kind in kinds], rows)
            for each in wanted
        ]
    told = [
        {
            "feature": each.measured.feature,
            "kind": each.measured.kind,
            **{name: getattr(each.measured, name) for name in _COUNTS},
            **{name: None if each.measured.unjudged else getattr(each.measured, name) for name in _DISTANCES},
            "corrected_p": each.corrected_p if each.state in ("drift", "none") else None,
            "threshold": each.threshold,
            "state": each.state,
            "reason": each.reason,
        }
        for each in verdicts(measured)
    ]
    texts = [("feature", pa.string()), ("kind", pa.string())]
    counts = [(name, pa.int64()) for name in _COUNTS]
    numbers = [(name, pa.float64()) for name in (*_DISTANCES, "corrected_p", "threshold")]
    words = [("state", pa.string()), ("reason", pa.string())]
    return pa.Table.from_pylist(told, pa.schema([*texts, *counts, *numbers, *words]))


_COUNTS = ("reference_count", "current_count", "reference_lacking", "current_lacking")
_DISTANCES = ("ks", "wasserstein", "psi", "jensen_shannon", "chi_squared", "p")


def _relation(connection: "duckdb.DuckDBPyConnection", name: str, sample: Any) -> str:
    """What stands after FROM for a sample."""
    if not isinstance(sample, str | Path):
        connection.register(name, sample)
        return name
    path = Path(sample)
    if path.suffix not in _READERS:
        raise Refusal(f"{path} cannot be read: give a file that ends in {' or '.join(_READERS)}, or a table.")
    if not path.is_file():
        raise Refusal(f"There is no file {path}.")
    return f"{_READERS[path.suffix]}({quote_literal(str(path))})"


def _kinds(connection: "duckdb.DuckDBPyConnection", relation: str) -> dict[str, str]:
    """The type of each column."""
    return dict(
        connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE FROM {relation})").fetchall()
    )


def _measured(
    connection: "duckdb.DuckDBPyConnection",
    reference: str,
    current: str,
    column: str,
    kinds: list[str | None],
    rows: list[int],
) -> Measured:
    if None in kinds:
        lacking = " and ".join(
            name
            for name, kind in zip(("the reference", "the current sample"), kinds, strict=True)
            if kind is None
        )
        return _unjudged(column, f"There is no such column in {lacking}.")
    if all(str(kind).startswith(_NUMBERS) and not str(kind).endswith("]") for kind in kinds):
        return _numbers(connection, reference, current, column, rows)
    if all(str(kind).startswith(_CATEGORIES) and not str(kind).endswith("]") for kind in kinds):
        return _categories(connection, reference, current, column)
    told = str(kinds[0]) if kinds[0] == kinds[1] else f"{kinds[0]} and {kinds[1]}"
    return _unjudged(
        column, f"Its values are {told}: numbers and categories are compared, each with its like."
    )


def _unjudged(column: str, reason: str) -> Measured:
    return Measured(column, "all", "category", 0, 0, 1.0, 0.0, 0.0, unjudged=reason)


def _numbers(
    connection: "duckdb.DuckDBPyConnection", reference: str, current: str, column: str, rows: list[int]
) -> Measured:
    r, c, far = column_distances(connection, reference, current, column, rows)
    lacking = [rows[0] - r, rows[1] - c]
    (lacking_p,) = lacking_ps([[r, lacking[0]]], [[c, lacking[1]]])
    more: dict[str, Any] = {
        "reference_lacking": lacking[0],
        "current_lacking": lacking[1],
        "lacking_p": float(lacking_p),
    }
    if far is None:
        return Measured(column, "all", "number", r, c, 1.0, 0.0, 0.0, **more)
    p = ks_p(far.ks, r, c)
    over_bins = (far.psi, far.jensen_shannon)
    return Measured(column, "all", "number", r, c, p, *over_bins, far.ks, far.wasserstein, **more)


def _categories(
    connection: "duckdb.DuckDBPyConnection", reference: str, current: str, column: str
) -> Measured:
    statement = read_sql("duckdb/drift/sample_categories.sql").format(
        column=quote_identifier(column), reference=reference, current=current, most=CATEGORIES
    )
    counts = np.array(connection.execute(statement).fetchall(), float).reshape(-1, 2)
    r, c = counts[:, 0], counts[:, 1]
    if not r.sum() or not c.sum():
        empty = "reference" if not r.sum() else "current sample"
        return _unjudged(column, f"The {empty} has no rows.")
    statistic, p = chi_squared(r, c)
    name = quote_identifier(column)
    lacking = [
        _rows(connection, f"(SELECT 1 FROM {relation} WHERE {name} IS NULL)")
        for relation in (reference, current)
    ]
    return Measured(
        column,
        "all",
        "category",
        int(r.sum()),
        int(c.sum()),
        p,
        psi(r, c),
        jensen_shannon(r, c),
        chi_squared=statistic,
        reference_lacking=lacking[0],
        current_lacking=lacking[1],
    )


def _rows(connection: "duckdb.DuckDBPyConnection", relation: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM {relation}").fetchone() or (0,)
    return count


def column_distances(
    connection: "duckdb.DuckDBPyConnection",
    reference: str,
    current: str,
    column: str,
    rows: Sequence[int] | None = None,
) -> tuple[int, int, Distances | None]:
    """How many values a column of numbers has in two relations, and how far they lie apart; None if one has no value.

    Exact, and yet no value is sorted but those of a few bins: what a bin adds to each distance follows from its counts
    and sums, unless it is `unresolved`. Memory does not grow with the rows, but with the different values in such bins.

    Args:
        reference, current: what stands after FROM.
        column: its name in both.
        rows: how many rows they have, if that is known.
    """
    name = quote_identifier(column)
    counts = rows or [_rows(connection, each) for each in (reference, current)]
    samples = [
        _Values(connection, f"SELECT {name}::DOUBLE FROM {each}", count <= _KEPT)
        for each, count in zip((reference, current), counts, strict=True)
    ]
    grid = _grid_of(samples[0]) if counts[0] <= _KEPT else _grid(connection, reference, name)
    r, c = map(grid.counted, samples)
    if not r.total or not c.total:
        return r.total, c.total, None
    bins, segments = grid.segments(r, c)
    again = unresolved(segments, BINS)
    if again.any():
        known = [grid.distinct(each, bins[again]) for each in samples]
        segments = segments.chosen(~again).merged(of_values(*known))
    return r.total, c.total, distances(segments, BINS, grid.origin)


class _Values:
    """The finite values of a column, in pieces, as often as they are asked for.

    Args:
        connection: may read nothing else meanwhile.
        query: its one column is of doubles.
        few: keep them from the first time on.
    """

    def __init__(self, connection: "duckdb.DuckDBPyConnection", query: str, few: bool) -> None:
        self._connection, self._query, self._few = connection, query, few
        self._kept: list[NDArray[np.float64]] | None = None

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        if self._few and self._kept is None:
            self._kept = list(self._read())
        return iter(self._kept) if self._kept is not None else self._read()

    def _read(self) -> Iterator[NDArray[np.float64]]:
        for batch in self._connection.execute(self._query).to_arrow_reader(_PIECE):
            found = batch.column(0).to_numpy(zero_copy_only=False)  # a null is NaN
            yield found if (there := np.isfinite(found)).all() else found[there]


def _grid_of(values: Iterable[NDArray[np.float64]]) -> Grid:
    """The grid over most of a column whose values are at hand; see sql/duckdb/drift/grid.sql."""
    pieces = list(values)
    step = max(1, sum(map(len, pieces)) // _LOOKED_AT)
    some = np.sort(np.concatenate([piece[::step] for piece in pieces] or [np.empty(0)]))
    if not len(some):
        return grid_over(0.0, 0.0, None, 0.0)
    above = some[np.searchsorted(some, 0.0, "right") :]
    negative = float(np.searchsorted(some, 0.0)) / len(some)
    low, high = _most(some)
    return grid_over(low, high, _most(above) if len(above) else None, negative)


def _most(ascending: NDArray[np.float64]) -> tuple[float, float]:
    """Between which all but two in a thousand lie."""
    last = len(ascending) - 1
    return float(ascending[round(0.001 * last)]), float(ascending[round(0.999 * last)])


def _grid(connection: "duckdb.DuckDBPyConnection", reference: str, column: str) -> Grid:
    """The grid over most of a column."""
    for percent in (_SAMPLED_PERCENT, 100):
        statement = (
            read_sql("duckdb/drift/grid.sql")
            .replace("{column}", column)
            .replace("{reference}", reference)
            .replace("{percent}", str(percent))
        )
        row = connection.execute(statement).fetchone()
        if row and row[0]:
            (low, high), above, negative = row
            return grid_over(low, high, tuple(above) if above else None, negative)
    return grid_over(0.0, 0.0, None, 0.0)
