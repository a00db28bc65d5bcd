"""What `ml-assets runs better` prints."""

from typing import TYPE_CHECKING, Any

from ml_assets.cli.command import Form
from ml_assets.errors import Refusal
from ml_assets.lib.metric_rules import Direction
from ml_assets.lib.run_selectors import is_condition
from ml_assets.settings import Settings
from ml_assets.stack import Stack

if TYPE_CHECKING:
    from ml_assets.lib.significance import Verdict


def better(
    settings: Settings,
    groups: list[str],
    metric: str,
    by: str | None,
    dataset: str | None,
    where: str | None,
    direction: Direction | None,
    candidates: int | None,
    form: Form,
) -> None:
    """Print the verdicts on groups, or on those that a field makes."""
    if not metric:
        raise Refusal("Better at what? Name a metric, such as --metric accuracy.")
    if (by is None) == (not groups):
        raise Refusal(
            "Name two groups of runs, such as model_name=cats model_name=dogs, or --by and a field."
        )
    higher_is_better = None if direction is None else direction == "max"
    experiments = Stack(settings).experiments
    if by is not None:
        if candidates is not None:
            raise Refusal("With --by the candidates are the groups themselves: leave out --candidates.")
        found = experiments.best_of(
            by, metric, dataset=dataset, where=where, higher_is_better=higher_is_better
        )
    else:
        if where is not None:
            raise Refusal(
                "--where goes with --by: say it in the groups, such as model_name=cats,status=failed."
            )
        if len(groups) < 2:
            raise Refusal(f"{groups[0]} is better than what? Name another group of runs.")
        if len(groups) > 2 and candidates is not None:
            raise Refusal("--candidates goes with two groups: of more, the best one is selected here.")
        first, second, *others = [_group(each) for each in groups]
        if others:
            found = experiments.better_of(
                [first, second, *others], metric, dataset=dataset, higher_is_better=higher_is_better
            )
        else:
            found = [
                experiments.is_better(
                    first,
                    second,
                    metric,
                    dataset=dataset,
                    higher_is_better=higher_is_better,
                    candidates=candidates,
                )
            ]
    _print(found, form)


def _group(text: str) -> str | list[str]:
    ids = [each.strip() for each in text.split(",")]
    return text if any(map(is_condition, ids)) else ids


def _print(verdicts: "list[Verdict]", form: Form) -> None:
    if form == "json":
        import orjson

        print(orjson.dumps([verdict.as_json() for verdict in verdicts]).decode())
        return
    if form == "csv":
        import pyarrow as pa

        from ml_assets.cli.data import print_table

        print_table(pa.Table.from_pylist([_flat(verdict) for verdict in verdicts], _schema()), form)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("a", "b", "better", "a less b", "95 % interval", "p", "n", show_lines=True)
    for verdict in verdicts:
        winner = None if verdict.better is None else verdict.a if verdict.better else verdict.b
        low_high = verdict.interval and f"{verdict.interval[0]:+.4g} to {verdict.interval[1]:+.4g}"
        cells = (
            verdict.a,
            verdict.b,
            winner or "not shown",
            None if verdict.effect is None else f"{verdict.effect:+.4g}",
            low_high,
            None if verdict.p is None else f"{verdict.p:.3g}",
            f"{' and '.join(f'{n:,}' for n in (verdict.n if verdict.unit == 'runs' else verdict.n[:1]))} {verdict.unit}",
        )
        table.add_row(*(Text(cell or "") for cell in cells))
    console = Console()
    console.print(table)
    for verdict in verdicts:
        console.print(Text(str(verdict)))


def _flat(verdict: "Verdict") -> dict[str, Any]:
    """A row of CSV: the interval and the numbers of units in columns of their own."""
    told = verdict.as_json()
    low, high = told.pop("interval") or (None, None)
    n_a, n_b = told.pop("n")
    return told | {"interval_low": low, "interval_high": high, "n_a": n_a, "n_b": n_b}


def _schema() -> Any:
    """The columns of CSV, whose types no row has to show."""
    import pyarrow as pa

    names = {
        pa.string(): ("metric", "a", "b"),
        pa.bool_(): ("better", "selected"),
        pa.float64(): ("effect", "interval_low", "interval_high", "p", "standardized", "selection_bias"),
        pa.int64(): ("n_a", "n_b", "needed"),
    }
    fields = [(name, kind) for kind, each in names.items() for name in each]
    return pa.schema([*fields, *((name, pa.string()) for name in ("unit", "test", "reason", "sentence"))])
