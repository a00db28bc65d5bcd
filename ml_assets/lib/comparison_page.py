"""A comparison of runs as one HTML page that asks nothing of any network: tables, curves, parallel coordinates.

What belongs here: a comparison and curves in, a page out. What does not: reading runs, or the files of style and
script, which are handed in. The tables stand in the page and are read without the script; it sorts them and draws.

All that comes from runs is text: escaped in the tables, and data in a script element that no browser executes. The
page's own policy lets the browser execute the one script that it came with, and load nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from ml_assets.lib.comparison import NOTE, SHAPES, Comparison, comparable, run_labels
from ml_assets.lib.html_page import framed
from ml_assets.lib.html_page import text as _text
from ml_assets.lib.words import counted

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_COLUMNS = 40
"""Parameters, and metrics, in the table of runs; a wider one is read by nobody."""
_MOST_ROWS = 500
"""Parameters, and metrics, in tables of their own."""
_MOST_AXES = 8
_STRONG_P = 0.05


@dataclass(frozen=True)
class Curves:
    """Learning curves.

    Args:
        points: rows (run_id, key, x, value), each curve in the order of x; a null value is one that is not finite.
        left_out: further curves of these runs.
    """

    points: "pa.Table"
    left_out: int = 0


def page(compared: Comparison, curves: Curves | None, style: str, script: str, title: str = "") -> str:
    """The page.

    Args:
        curves: None where nothing is known of any.
        style: CSS.
        script: JavaScript that finds its data in the element `data`.
        title: of the page; "Comparison of n runs" if empty.
    """
    runs = compared.runs.to_pylist()
    title = title or f"Comparison of {counted(len(runs), 'run')}"
    ids = [run["run_id"] for run in runs]
    labels = run_labels(runs)
    parameters = compared.parameters.to_pylist()
    metrics = compared.metrics.to_pylist()
    importance = compared.importance.to_pylist()
    differing = _ordered(
        [each for each in parameters if each["differs"] and each["kind"] != "tag"], importance
    )
    data = _data(compared, ids, labels, differing, metrics, curves)
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="lead">{_text(_lead(runs))}</p>',
        _notes([note for note in compared.notes if note != NOTE]),
        _figures(compared, runs, labels, differing, metrics),
        _importance(compared, importance),
        _parallel(data["axes"], len(differing)),
        _curves(curves, data["curves"]),
        _metrics(metrics, dict(zip(ids, labels, strict=True))),
        _runs(compared, runs, labels, differing, metrics),
        _common(parameters),
        _tags(parameters, labels),
    ]
    body = "\n".join(part for part in parts if part)
    return framed(title, body, data, style, script)


def _number(value: float) -> str:
    """Four digits, as a person reads them."""
    if value.is_integer() and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _lead(runs: Sequence[Mapping[str, Any]]) -> str:
    def of(name: str, one: str) -> str:
        known = sorted({run[name] for run in runs if run[name]})
        if not known:
            return ""
        return f"{one} {known[0]}" if len(known) == 1 else counted(len(known), one)

    times = sorted(run["created_at"] for run in runs if run["created_at"])
    span = ""
    if times:
        first, last = f"{times[0]:%Y-%m-%d}", f"{times[-1]:%Y-%m-%d}"
        span = first if first == last else f"{first} to {last}"
    told = [of("experiment", "experiment"), of("dataset", "dataset"), of("model_name", "model"), span]
    return " · ".join(part for part in told if part)


def _notes(notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def _figures(
    compared: Comparison,
    runs: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    differing: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
) -> str:
    figures = [("runs", f"{len(runs):,}"), ("parameters that differ", f"{len(differing):,}")]
    chosen = next((row for row in metrics if row["key"] == compared.metric), None)
    if chosen and chosen["best"] is not None:
        figures.append((f"best {chosen['key']}", _number(chosen["best"])))
        if chosen["best_run"]:
            best = next(i for i, run in enumerate(runs) if run["run_id"] == chosen["best_run"])
            figures.append(("best run", labels[best]))
        if chosen["spread"] is not None:
            figures.append(("spread", _number(chosen["spread"])))
    cells = "".join(
        f"<div><dt>{_text(name)}</dt><dd{' class=words' if name == 'best run' else ''} title='{_text(value)}'>"
        f"{_text(value)}</dd></div>"
        for name, value in figures
    )
    return f'<dl class="figures">{cells}</dl>'


def _ordered(
    differing: Sequence[dict[str, Any]], importance: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What differs, the strongest first."""
    place = {(row["kind"], row["key"]): i for i, row in enumerate(importance)}
    return sorted(differing, key=lambda row: place.get((row["kind"], row["key"]), len(place)))


def _table(
    heads: Iterable[tuple[str, str, str]],
    rows: Iterable[str],
    name: str = "",
    caption: str = "",
    ordered: int | None = None,
) -> str:
    """A table that sorts.

    Args:
        heads: (text, class, direction of the first sorting) by column.
        rows: HTML.
        ordered: the column that the rows are sorted by already, in its first direction.
    """
    top = "".join(
        f'<th scope="col"{f" class={style!r}" if style else ""}{f" data-first={first!r}" if first else ""}'
        f'{f" aria-sort={first!r}" if place == ordered else ""} title="{_text(text)}">{_text(text)}</th>'
        for place, (text, style, first) in enumerate(heads)
    )
    marked = f' id="{name}"' if name else ""
    label = f' aria-label="{escape(caption)}"' if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table class="sortable"{marked}{label}><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _figure(value: float | None, style: str = "") -> str:
    if value is None:
        return '<td class="n none">&ndash;</td>'
    return f'<td class="n{f" {style}" if style else ""}" data-value="{value!r}" title="{value!r}">{_number(value)}</td>'


def _words(value: object, style: str = "") -> str:
    if value is None:
        return '<td class="none">&ndash;</td>'
    return f'<td{f" class={style!r}" if style else ""} title="{_text(value)}">{_text(value)}</td>'


def _name(text: str, title: str = "") -> str:
    """The first cell of a row."""
    return f'<th scope="row" title="{_text(title or text)}">{_text(text)}</th>'


def _importance(compared: Comparison, importance: Sequence[Mapping[str, Any]]) -> str:
    if not importance:
        return ""
    rows = []
    for row in importance[:_MOST_ROWS]:
        strength = row["strength"]
        if strength is None:
            meter = '<td class="none">&ndash;</td>'
        else:
            bar = f'<span class="meter"><i style="width:{strength * 100:.1f}%"></i></span>'
            meter = f'<td data-value="{strength!r}">{bar}{strength * 100:.0f} %</td>'
        shown = row["p_corrected"]
        told = row["note"] or SHAPES[row["shape"]]
        chance = row["note"] is None and shown > _STRONG_P
        told += "; may well be chance" if chance else ""
        rows.append(
            f"<tr{' class=chance' if chance else ''}>{_name(row['key'])}{_words(row['kind'])}{meter}"
            f"{_figure(shown)}{_figure(float(row['runs']))}{_words(told)}</tr>"
        )
    heads = [
        ("parameter", "", ""),
        ("kind", "", ""),
        ("strength", "", "descending"),
        ("p, corrected", "n", ""),
        ("runs", "n", "descending"),
        ("how", "", ""),
    ]
    note = (
        f"Share of the variance of the ranks of {_text(compared.metric)} that goes with each. {escape(NOTE)}"
    )
    table = _table(heads, rows, "importance", "Importance")
    return f"<section><h2>What {_text(compared.metric)} went with</h2><p>{note}</p>{table}</section>"


def _parallel(axes: Sequence[Any], differing: int) -> str:
    if len(axes) < 2:
        return ""
    more = (
        f" {counted(differing - len(axes) + 1, 'more differs', 'more differ')}."
        if differing >= len(axes)
        else ""
    )
    return (
        '<section class="js-only"><h2>Parameters and the metric</h2>'
        f"<p>A line is a run.{more}</p>"
        '<div class="bar"><span id="brushed">Drag along an axis to choose runs</span>'
        '<button type="button" id="clear" hidden>all runs</button></div><div id="parallel"></div></section>'
    )


def _curves(curves: Curves | None, drawn: Sequence[Any]) -> str:
    if not drawn:
        return ""
    left = curves.left_out if curves else 0
    told = (
        f" {counted(left, 'more curve is', 'more curves are')} left out: those of the best runs are shown."
        if left
        else ""
    )
    return (
        '<section class="js-only"><h2>Learning curves</h2>'
        "<p>Each point is the lowest or highest value of its stretch of steps, so that spikes stay visible; &times; "
        f"marks a value that is not finite.{told}</p>"
        '<div class="bar" id="curve-bar"></div><div id="curves"></div></section>'
    )


def _metrics(metrics: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> str:
    if not metrics:
        return ""
    rows = []
    for row in metrics[:_MOST_ROWS]:
        better = "higher" if row["higher_is_better"] else "lower"
        best = _words(labels[row["best_run"]] if row["best_run"] else None)
        figures = "".join(_figure(row[name], "best" * (name == "best")) for name in _SUMMARY)
        rows.append(
            f"<tr>{_name(row['key'])}{_words(better)}{best}{figures}"
            f"{_figure(float(row['runs']))}{_figure(float(row['not_finite']))}</tr>"
        )
    heads = [("metric", "", ""), ("better", "", ""), ("best run", "", "")]
    heads += [(name, "n", "descending") for name in (*_SUMMARY, "runs", "not finite")]
    more = (
        f"<p>{len(metrics) - _MOST_ROWS:,} more metrics are left out.</p>"
        if len(metrics) > _MOST_ROWS
        else ""
    )
    return f"<section><h2>Metrics</h2>{more}{_table(heads, rows, 'metrics', 'Metrics')}</section>"


_SUMMARY = ("best", "worst", "mean", "std", "spread")


def _runs(
    compared: Comparison,
    runs: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    differing: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
) -> str:
    """The runs, the best by the comparison's metric first."""
    about = [name for name in ("experiment", "status") if len({run[name] for run in runs}) > 1]
    columns, figures = differing[:_MOST_COLUMNS], metrics[:_MOST_COLUMNS]
    heads = [("run", "", "")]
    heads += [(name, "", "") for name in about]
    numeric = [row["lowest"] is not None for row in columns]
    heads += [(row["key"], "n" * number, "") for row, number in zip(columns, numeric, strict=True)]
    deltas = [row["deltas"] is not None for row in figures]
    ordered, ranks = None, [None] * len(runs)
    for row, delta in zip(figures, deltas, strict=True):
        first = "descending" if row["higher_is_better"] else "ascending"
        if row["key"] == compared.metric:
            ordered, ranks = len(heads), _ranks(row)
        heads.append((row["key"], "n", first))
        if delta:
            heads.append((f"Δ {row['key']}", "n", first))
    rows = []
    for i in sorted(range(len(runs)), key=lambda i: (ranks[i] is None, -(ranks[i] or 0))):
        run, label = runs[i], labels[i]
        mark = " (baseline)" if run["run_id"] == compared.baseline else ""
        cells = [_name(f"{label}{mark}", run["run_id"])]
        cells += [_words(run[name]) for name in about]
        for row, number in zip(columns, numeric, strict=True):
            value = row["values"][i]
            plain = comparable(value) if number else None
            cells.append(_parameter(value, plain) if value is not None or not number else _figure(None))
        for row, delta in zip(figures, deltas, strict=True):
            best = row["best_run"] and row["values"][i] == row["best"]
            cells.append(_figure(row["values"][i], "best" if best else ""))
            if delta:
                cells.append(_figure(row["deltas"][i]))
        rows.append(f'<tr data-run="{i}">{"".join(cells)}</tr>')
    left = [
        f"{len(all_) - _MOST_COLUMNS:,} more {name}"
        for all_, name in ((differing, "that differ"), (metrics, "metrics"))
        if len(all_) > _MOST_COLUMNS
    ]
    told = f"<p>Left out: {' and '.join(left)}.</p>" if left else ""
    bar = (
        '<div class="bar js-only-bar"><input type="search" id="words" placeholder="find runs by words" '
        'aria-label="find runs by words"><span id="shown"></span></div>'
    )
    return f"<section><h2>Runs</h2>{told}{bar}{_table(heads, rows, 'runs', 'Runs', ordered)}</section>"


def _parameter(value: str | None, number: float | str | None) -> str:
    if value is None:
        return '<td class="none">&ndash;</td>'
    if isinstance(number, float):
        return f'<td class="n" data-value="{number!r}" title="{_text(value)}">{_text(_number(number))}</td>'
    return _words(value)


def _common(parameters: Sequence[Mapping[str, Any]]) -> str:
    same = [row for row in parameters if not row["differs"] and row["kind"] != "tag"]
    if not same:
        return ""
    rows = [
        f"<tr>{_name(row['key'])}{_words(row['kind'])}{_words(row['value'])}</tr>"
        for row in same[:_MOST_ROWS]
    ]
    table = _table([("parameter", "", ""), ("kind", "", ""), ("value", "", "")], rows, "same", "In common")
    return f"<section><details><summary>The same in all runs ({len(same):,})</summary>{table}</details></section>"


def _tags(parameters: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    tags = [row for row in parameters if row["kind"] == "tag"]
    if not tags:
        return ""
    rows = [
        f"<tr>{_name(row['key'])}{_figure(float(row['runs']))}{_figure(float(row['distinct']))}"
        f"{_words(row['value'] if not row['differs'] else _some(row['values']))}</tr>"
        for row in tags[:_MOST_ROWS]
    ]
    heads = [("tag", "", ""), ("runs", "n", "descending"), ("values", "n", "descending"), ("which", "", "")]
    table = _table(heads, rows, "tags", "Tags")
    return f"<section><details><summary>Tags ({len(tags):,})</summary>{table}</details></section>"


def _some(values: Sequence[str | None]) -> str:
    known = sorted({value for value in values if value is not None})
    return ", ".join(known[:5]) + (" …" if len(known) > 5 else "")


def _data(
    compared: Comparison,
    ids: Sequence[str],
    labels: Sequence[str],
    differing: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
    curves: Curves | None,
) -> dict[str, Any]:
    """What the script draws from."""
    chosen = next((row for row in metrics if row["key"] == compared.metric), None)
    ranks = _ranks(chosen) if chosen else [None] * len(ids)
    axes = []
    if chosen:
        weighed = {
            (row["kind"], row["key"]) for row in compared.importance.to_pylist() if row["note"] is None
        }
        # What tells every run apart makes a ball of wool; with few runs nothing is weighed, and all are drawn.
        drawn_as_axes = [row for row in differing if (row["kind"], row["key"]) in weighed] or differing
        for row in drawn_as_axes[: _MOST_AXES - 1]:
            numeric = row["lowest"] is not None
            values = [comparable(value) if numeric else value for value in row["values"]]
            axes.append({"key": row["key"], "numeric": numeric, "values": values})
        axes.append({"key": chosen["key"], "numeric": True, "values": chosen["values"]})
    drawn = _drawn(curves, {run_id: i for i, run_id in enumerate(ids)}) if curves else []
    return {
        "runs": [{"label": label, "rank": rank} for label, rank in zip(labels, ranks, strict=True)],
        "metric": compared.metric,
        "higher": {row["key"]: row["higher_is_better"] for row in metrics},
        "axes": axes,
        "curves": drawn,
    }


def _ranks(chosen: Mapping[str, Any]) -> list[float | None]:
    """Of each run, from 0 for the worst to 1 for the best; None where there is no value."""
    known = sorted({value for value in chosen["values"] if value is not None})
    if not chosen["higher_is_better"]:
        known.reverse()
    if len(known) < 2:
        return [None] * len(chosen["values"])
    place = {value: i / (len(known) - 1) for i, value in enumerate(known)}
    return [None if value is None else place[value] for value in chosen["values"]]


def _drawn(curves: Curves, places: Mapping[str, int]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    columns = (curves.points[name].to_pylist() for name in ("run_id", "key", "x", "value"))
    for run_id, key, x, value in zip(*columns, strict=True):
        curve = found.setdefault((run_id, key), {"key": key, "run": places[run_id], "x": [], "y": []})
        curve["x"].append(x)
        curve["y"].append(value if value is not None and math.isfinite(value) else None)
    return list(found.values())
