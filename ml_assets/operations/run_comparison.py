"""Runs side by side: read from PostgreSQL in one query, their curves from the lake, shown as tables or as one page.

What belongs here: reading what `lib/comparison.py` compares and `lib/comparison_page.py` draws, and writing the page.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal
from ml_assets.lib.comparison import MOST_RUNS, Comparison, compare
from ml_assets.lib.comparison_page import Curves, page
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.operations.page_file import page_part, write_page
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

MOST_CURVES = 100
_MOST_KEYS = 8
_STRETCHES = 150
"""Of a curve; each has up to two points."""


class RunComparison:
    """What a comparison of runs found.

    Attributes:
        found: all of it, as `ml_assets.lib.comparison.Comparison` describes it.
        records: the runs as they stand in PostgreSQL, in the order asked for, with `run_id`, `parameters`, `metrics`
            and `tags`.
    """

    def __init__(
        self, found: Comparison, records: Sequence[Mapping[str, Any]], read_curves: Callable[[], Curves]
    ) -> None:
        self.found = found
        self.records = records
        self._read_curves = read_curves

    def __repr__(self) -> str:
        return f"<comparison of {self.runs.num_rows} runs>"

    @property
    def runs(self) -> "pa.Table":
        """One row a run."""
        return self.found.runs

    @property
    def parameters(self) -> "pa.Table":
        """One row a parameter or fact about data, those that differ first, with the value of each run."""
        return self.found.parameters

    @property
    def metrics(self) -> "pa.Table":
        """One row a metric, with its best run, its spread, and each run's difference to the baseline."""
        return self.found.metrics

    @property
    def importance(self) -> "pa.Table":
        """One row a parameter: how strongly the metric went with it. It is correlational."""
        return self.found.importance

    @property
    def notes(self) -> tuple[str, ...]:
        """What to bear in mind, in sentences."""
        return self.found.notes

    @cached_property
    def curves(self) -> Curves:
        """Learning curves of the best runs, at most 100, read when they are first asked for."""
        return self._read_curves()

    def to_html(self, title: str = "") -> str:
        """One page that needs no network: tables that sort, learning curves, parallel coordinates.

        Raises:
            StoreUnavailable: the lake, which has the curves, does not answer.
        """
        style, script = (page_part(name) for name in ("compare.css", "compare.js"))
        return page(self.found, self.curves, style, script, title)

    def write_html(self, path: Path | str, title: str = "") -> Path:
        """Write the page to a file, in place of one that is there, whole or not at all.

        Raises:
            Refusal: the file ends in neither .html nor .htm, or there is no such folder.
            StoreUnavailable: as `to_html`.
        """
        return write_page(path, lambda: self.to_html(title))


def compare_runs(
    postgres: "PostgresResource",
    lake: "DuckLakeResource",
    rules: MetricRules,
    runs: "Iterable[str] | Iterable[Mapping[str, Any]] | pa.Table",
    metric: str | None = None,
    baseline: str | None = None,
) -> RunComparison:
    """Compare runs; see `Experiments.compare`."""
    ids = run_ids(runs)
    if len(ids) > MOST_RUNS:
        raise Refusal(
            f"A comparison takes up to {MOST_RUNS:,} runs, and these are {len(ids):,}: choose fewer of them."
        )
    rows = postgres.experiments_of(ids)
    known = {row["id"] for row in rows}
    if missing := [run_id for run_id in ids if run_id not in known]:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise Refusal(
            f"There is no run {', '.join(map(repr, missing[:3]))}{more}: 'ml-assets runs search' finds them."
        )
    return compared(rows, lake, rules, metric, baseline)


def compared(
    rows: Sequence[Mapping[str, Any]],
    lake: "DuckLakeResource",
    rules: MetricRules,
    metric: str | None = None,
    baseline: str | None = None,
) -> RunComparison:
    """Compare runs that were read from PostgreSQL.

    Args:
        rows: of `PostgresResource.experiments_of`.

    Raises:
        Refusal: no run or more than 1,000, or no such metric or baseline among them.
    """
    records = [{("run_id" if name == "id" else name): value for name, value in row.items()} for row in rows]
    try:
        found = compare(records, rules, metric, baseline)
    except ValueError as fault:
        raise Refusal(str(fault)) from fault
    return RunComparison(found, records, lambda: read_curves(lake, found))


def run_ids(runs: "Iterable[str] | Iterable[Mapping[str, Any]] | pa.Table") -> list[str]:
    """The ids of runs that are named, or stand in rows that have them as `run_id` (or `id`); each once.

    Raises:
        Refusal: a row has no id.
    """
    if isinstance(runs, str):
        return [runs]
    rows: Iterable[Any] = getattr(runs, "to_pylist", lambda: runs)()
    found = []
    for row in rows:
        run_id = row.get("run_id", row.get("id")) if isinstance(row, Mapping) else row
        # No id that PostgreSQL could hold has a NUL or half a character.
        if not isinstance(run_id, str) or "\0" in run_id or run_id != run_id.encode(errors="ignore").decode():
            raise Refusal(f"{row!r:.80} names no run: give ids, or rows with a column run_id.")
        found.append(run_id)
    return list(dict.fromkeys(found))


def read_curves(lake: "DuckLakeResource", found: Comparison) -> Curves:
    """The learning curves of the best runs of a comparison by its metric, downsampled in the lake.

    Raises:
        StoreUnavailable: the lake does not answer.
    """
    import duckdb
    import pyarrow as pa

    limits = {"curves": MOST_CURVES, "keys": _MOST_KEYS, "stretches": _STRETCHES}
    asked = {"runs": _best_first(found), "first": found.metric, **limits}
    try:
        points = lake.reader(read_sql("duckdb/operations/compared_curves.sql"), asked).read_all()
    except duckdb.CatalogException:  # nothing was ever taken in, as where all runs are an application's
        fields = [("run_id", pa.string()), ("key", pa.string()), ("x", pa.int64()), ("value", pa.float64())]
        return Curves(pa.schema(fields).empty_table())
    if not points.num_rows:
        return Curves(points)
    shown = points.select(["run_id", "key"]).group_by(["run_id", "key"]).aggregate([]).num_rows
    return Curves(points, points["known"][0].as_py() - shown)


def _best_first(found: Comparison) -> list[str]:
    """The runs in the order of the comparison's metric; those without a value last."""
    ids = found.runs["run_id"].to_pylist()
    chosen = next((row for row in found.metrics.to_pylist() if row["key"] == found.metric), None)
    if chosen is None:
        return ids
    sign = -1 if chosen["higher_is_better"] else 1
    order = [(value is None, sign * (value or 0), i) for i, value in enumerate(chosen["values"])]
    return [ids[i] for _, _, i in sorted(order)]
