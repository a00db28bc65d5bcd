"""What `ml-assets runs compare` prints and writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.errors import Refusal
from ml_assets.lib.comparison import MOST_RUNS, SHAPES, run_labels
from ml_assets.lib.words import counted
from ml_assets.settings import Settings
from ml_assets.stack import Stack

if TYPE_CHECKING:
    from ml_assets.operations.experiments import Experiments
    from ml_assets.operations.run_comparison import RunComparison

Part = Literal["runs", "parameters", "metrics", "importance"]

_SIDE_BY_SIDE = 6
"""Runs that have a column each on a screen; of more, the best and the range are told."""


def compare(
    settings: Settings,
    run_ids: Sequence[str],
    filter: str | None,
    metric: str | None,
    baseline: str | None,
    html: Path | None,
    part: Part,
    form: Form,
) -> None:
    """Print a comparison, and write its page if one is asked for."""
    experiments = Stack(settings).experiments
    found = [] if filter is None else _found(experiments, filter)
    compared = experiments.compare([*run_ids, *found], metric, baseline)
    if html is not None:
        compared.write_html(html)
    if form == "table":
        _print(compared)
        if html is not None:
            print(f"The page is {html.absolute()}.")
    elif part == "runs":
        _print_runs(compared, form)
    else:
        print_table(getattr(compared, part), form)


def _found(experiments: "Experiments", filter: str) -> list[str]:
    """The ids of the runs that a filter finds, the newest first.

    Raises:
        Refusal: the filter is wrong, or it finds none, or too many.
    """
    runs = experiments.search(filter, limit=MOST_RUNS + 1).runs
    if not runs:
        raise Refusal("The filter finds no run to compare: widen it.")
    if len(runs) > MOST_RUNS:
        raise Refusal(f"The filter finds more than {MOST_RUNS:,} runs, and no more are compared: narrow it.")
    return [run["run_id"] for run in runs]


def _print_runs(compared: "RunComparison", form: Form) -> None:
    """A run a row: as JSON with its parameters and metrics whole, as CSV with a column for each that differs."""
    import pyarrow as pa

    if form == "json":
        import orjson

        metrics = compared.metrics.to_pylist()
        rows = []
        for i, record in enumerate(compared.records):
            deltas = {row["key"]: row["deltas"][i] for row in metrics if row["deltas"] is not None}
            best = [row["key"] for row in metrics if row["best_run"] == record["run_id"]]
            plain = {name: record[name] or {} for name in ("metrics", "parameters", "tags")}
            rows.append({**record, **plain, "best_in": best, "deltas": deltas})
        print(orjson.dumps(rows, default=str).decode())
        return
    table = compared.runs
    for row in compared.parameters.to_pylist():
        if row["differs"] and row["kind"] != "tag" and row["key"] not in table.schema.names:
            name = f"parameters.{row['key']}" if row["kind"] == "parameter" else row["key"]
            table = table.append_column(name, pa.array(row["values"], pa.string()))
    for row in compared.metrics.to_pylist():
        table = table.append_column(f"metrics.{row['key']}", pa.array(row["values"], pa.float64()))
        if row["deltas"] is not None:
            table = table.append_column(f"deltas.{row['key']}", pa.array(row["deltas"], pa.float64()))
    print_table(table, form)


def _print(compared: "RunComparison") -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    runs = compared.runs.to_pylist()
    ids, labels = [run["run_id"] for run in runs], run_labels(runs)
    console.print(f"{counted(len(ids), 'run')}", highlight=False)
    if differing := [
        row for row in compared.parameters.to_pylist() if row["differs"] and row["kind"] != "tag"
    ]:
        console.print(
            _grid("What differs", differing, ids, labels, _parameter, ("lowest", "highest", "distinct"))
        )
    same = sum(not row["differs"] and row["kind"] != "tag" for row in compared.parameters.to_pylist())
    console.print(f"The same in all: {counted(same, 'parameter or fact', 'parameters and facts')}.")
    if metrics := compared.metrics.to_pylist():
        console.print(
            _grid("Metrics", metrics, ids, labels, _metric, ("best", "worst", "mean", "spread", "best_run"))
        )
    importance = compared.importance.to_pylist()
    if any(row["note"] is None for row in importance):
        console.print(_importance(compared.found.metric or "", importance))
    for note in compared.notes:
        console.print(escape(note), highlight=False)


def _grid(
    title: str,
    rows: list[dict[str, Any]],
    ids: list[str],
    labels: list[str],
    cell: Any,
    summary: tuple[str, ...],
) -> Any:
    """A row a parameter or metric; a column a run where there are few of them, else what sums them up."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    few = len(ids) <= _SIDE_BY_SIDE
    table = Table("", *map(escape, labels if few else summary), title=title)
    table.columns[0].no_wrap = True
    for row in rows:
        cells = (
            [cell(row, i, run_id) for i, run_id in enumerate(ids)]
            if few
            else [_shown(row[name]) for name in summary]
        )
        table.add_row(Text(row["key"]), *cells)
    return table


def _parameter(row: dict[str, Any], place: int, run_id: str) -> Any:
    from rich.text import Text

    return Text(row["values"][place] or "")


def _metric(row: dict[str, Any], place: int, run_id: str) -> Any:
    """The value, with the difference to the baseline; the best in bold."""
    from rich.text import Text

    told = _shown(row["values"][place])
    if row["deltas"] is not None and row["deltas"][place]:
        told = f"{told} ({row['deltas'][place]:+.4g})"
    return Text(told, style="bold green" if row["best_run"] == run_id else "")


def _importance(metric: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "strength", "p, corrected", "runs", "how", title=Text(f"What {metric} went with"))
    for row in rows:
        strength = "" if row["strength"] is None else f"{row['strength']:.0%}"
        cells = (
            strength,
            _shown(row["p_corrected"]),
            f"{row['runs']:,}",
            row["note"] or SHAPES[row["shape"]],
        )
        table.add_row(Text(row["key"]), *map(Text, cells))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
