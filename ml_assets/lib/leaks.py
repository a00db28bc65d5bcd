"""What a model may not learn from: values of the future, values too old, and a test set that stands in the training set.

What belongs here: what was found and how it is told, and the SQL that asks where a value came from. What does not:
running it (operations/feature_leaks.py), and the likeness of rows (near_duplicates.py).
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ml_assets.lib.sql import quote_identifier
from ml_assets.lib.words import counted

Kind = Literal["future", "expired", "shared entity", "near duplicate", "no embargo", "label"]

KINDS: dict[Kind, str] = {
    "future": "features that were known only after the label's time",
    "expired": "features older than their TTL at the label's time",
    "shared entity": "the same entity in train and test",
    "near duplicate": "rows of test that almost stand in train",
    "no embargo": "labels of train that reach into the time of test",
    "label": "features that are the label under another name",
}
"""What is looked for, in the order of reports."""

MOST_EXAMPLES = 5

_OUTSIDE: dict[Kind, str] = {
    "future": "Take the features as they were known then, with stack.features.historical(...); a column that is the "
    "label itself is named by label=.",
    "expired": "Take the features with stack.features.historical(...), which leaves such values null, or raise the ttl "
    "in the view's file if they hold for longer.",
    "shared entity": "Put all rows of an entity on one side; if entities are meant to come again, since the split is by "
    "time, say entities_recur=True and declare an embargo.",
    "near duplicate": "Keep one row of each such pair, or put both on one side.",
    "no embargo": "Leave these rows out of train, or begin the test later.",
    "label": "Leave the column out of the features.",
}


class LeaksFound(ValueError):
    """A frame leaks. The message has a sentence a finding."""


@dataclass(frozen=True)
class View:
    """What a check has to know of a feature view.

    Args:
        name: of the view; columns `<name>__<feature>` are its features.
        relation: SQL of the table that holds it, quoted.
        entity: its columns that name what the features are of.
        event_time: column of the time from which values hold.
        known_time: column of the time from which they could be read.
        ttl: how long after the event time they may be used; None if for ever.
    """

    name: str
    relation: str
    entity: tuple[str, ...]
    event_time: str
    known_time: str
    ttl: timedelta | None = None


@dataclass(frozen=True)
class Served:
    """A column of a frame that holds a feature.

    Args:
        column: its name in the frame.
        feature: its name in the view.
        kind: the type of DuckDB as which the two are compared.
    """

    column: str
    feature: str
    kind: str


@dataclass(frozen=True)
class Finding:
    """One leak.

    Attributes:
        kind: see `KINDS`.
        where: the view, the feature or the columns that leak.
        count: how many rows do.
        told: what was found, as a sentence.
        examples: up to 5 of the rows: entity, times and values.
        way_out: what to do, as a sentence.
    """

    kind: Kind
    where: str
    count: int
    told: str
    examples: tuple[Mapping[str, Any], ...] = ()
    way_out: str = ""

    def __post_init__(self) -> None:
        if not self.way_out:
            object.__setattr__(self, "way_out", _OUTSIDE[self.kind])

    def __str__(self) -> str:
        shown = f" For example: {example_text(self.examples[0])}." if self.examples else ""
        return f"{self.told}{shown} {self.way_out}"


@dataclass(frozen=True)
class Verdict:
    """Whether a frame leaks.

    Attributes:
        rows: how many it has.
        features: the columns that were examined as features.
        splits: rows of each side; empty without a split.
        examined: by kind of leak, what was held against what.
        findings: the leaks.
        notes: what could not be examined, and why.
    """

    rows: int
    features: tuple[str, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    examined: Mapping[Kind, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing leaks, of what was examined."""
        return not self.findings

    def __bool__(self) -> bool:
        return self.ok

    def raise_for_leaks(self) -> None:
        """Do nothing if nothing leaks.

        Raises:
            LeaksFound: something does.
        """
        if self.findings:
            raise LeaksFound("\n".join(str(finding) for finding in self.findings))

    def as_json(self) -> dict[str, Any]:
        """All of it, as values that JSON has."""
        findings = [
            {**asdict(finding), "examples": [_plain(each) for each in finding.examples]}
            for finding in self.findings
        ]
        return {
            "ok": self.ok,
            "rows": self.rows,
            "features": list(self.features),
            "splits": dict(self.splits),
            "examined": dict(self.examined),
            "findings": findings,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"- {finding}" for finding in self.findings), *self.notes])

    __repr__ = __str__

    @property
    def headline(self) -> str:
        """What was examined and how it went, as a sentence."""
        sides = (
            f", {' and '.join(f'{n:,} of {side}' for side, n in self.splits.items())}" if self.splits else ""
        )
        what = f"{counted(self.rows, 'row')}{sides}, with {counted(len(self.features), 'feature')}"
        kinds = f"of {len(KINDS)} kinds of leak {len(self.examined)} were looked for"
        if not self.findings:
            return f"Nothing leaks: {what}; {kinds}."
        found = ", ".join(dict.fromkeys(finding.kind for finding in self.findings))
        return f"{counted(len(self.findings), 'leak')} ({found}): {what}; {kinds}."

    def markdown(self) -> str:
        """A report with a table of the kinds, and the findings with their examples."""
        lines = [f"**{self.headline}**", "", "| leak | examined | found |", "| --- | --- | --- |"]
        for kind, meaning in KINDS.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            told = "; ".join(f"{each.where}: {counted(each.count, 'row')}" for each in found) or "none"
            examined = self.examined.get(kind)
            lines.append(
                f"| {meaning} | {_cell(examined or 'no')} | {_cell(told) if examined or found else '-'} |"
            )
        for finding in self.findings:
            lines += ["", f"{finding.told} {finding.way_out}", ""]
            lines += [f"- {example_text(example)}" for example in finding.examples]
        if self.notes:
            lines += ["", *(f"{note}  " for note in self.notes)]
        return "\n".join(lines)

    _repr_markdown_ = markdown

    def _repr_html_(self) -> str:
        rows = []
        for kind, meaning in KINDS.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            told = "<br>".join(f"{html.escape(str(each))}" for each in found) or (
                "none" if kind in self.examined else "-"
            )
            examined = html.escape(self.examined.get(kind, "no"))
            rows.append(f"<tr><td>{html.escape(meaning)}</td><td>{examined}</td><td>{told}</td></tr>")
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        head = "<tr><th>leak</th><th>examined</th><th>found</th></tr>"
        return f"<p><b>{html.escape(self.headline)}</b></p><table>{head}{''.join(rows)}</table>{notes}"


def example_text(example: Mapping[str, Any]) -> str:
    """An example on one line: `model_name=m3, accuracy=0.93`."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in example.items())


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="auto").replace("+00:00", "Z")
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(example: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str | bool | int | None) else _shown(value)
        for name, value in example.items()
    }


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def origins(
    view: View, served: Sequence[Served], frame: str, entity: Mapping[str, str], time: str, among: str = ""
) -> str:
    """The SELECT that says of each row where its values of a view came from.

    It does not retrieve the features again. It looks each value up, whoever put it there: rows of the view with the
    same entity and values. If one of them was known by the label's time and young enough, it explains the value. Else
    one that was known and had grown too old does ('expired'). Else one that was known only afterwards ('future'). A
    value that no row has is 'unknown'. So a value that comes again by chance is not called a leak.

    Args:
        served: the columns of the frame that hold features of the view.
        frame: SQL of the frame, which numbers its rows in a column `__row`.
        entity: by column of the frame, the type of the view's column of the same name.
        time: its column of the label's time.
        among: SQL condition on the rows that are asked about.

    Returns:
        SQL with the columns __row, __origin, __event and __known, the last two microseconds since 1970: of the row of
        the view that explains the value.
    """
    names = [f"e{n}" for n in range(len(view.entity))]
    keys = ", ".join(names)
    same = " AND ".join(f"held.{name} = asked.{name}" for name in names)
    asked = [
        f"TRY_CAST({quote_identifier(column)} AS {kind}) AS {name}"
        for name, (column, kind) in zip(names, entity.items(), strict=True)
    ]
    held = [f"{quote_identifier(column)} AS {name}" for name, column in zip(names, view.entity, strict=True)]
    there = " OR ".join(f"{_comparable(each.column, each.kind)} IS NOT NULL" for each in served)
    event, known = (f"epoch_us({quote_identifier(name)})" for name in (view.event_time, view.known_time))
    ttl = view.ttl // timedelta(microseconds=1) if view.ttl is not None else None
    expires = f"{event} + {ttl}" if ttl is not None else "9223372036854775807"
    vector = _vector([(each.column, each.kind) for each in served])
    return f"""
WITH given AS (
    SELECT __row, {", ".join(asked)}, {vector} AS vector, epoch_us({quote_identifier(time)}) AS at
    FROM {frame}
    WHERE ({there}){f" AND {among}" if among else ""}
),
-- A number for each set of values: an ASOF join takes no values of which some are missing.
vectors AS MATERIALIZED (
    SELECT vector, row_number() OVER () AS id FROM (SELECT DISTINCT vector FROM given)
),
asked AS (
    SELECT given.* EXCLUDE (vector), id FROM given JOIN vectors USING (vector)
),
held AS (
    SELECT {", ".join(held)}, {_vector([(each.feature, each.kind) for each in served])} AS vector,
        {event} AS event, greatest({event}, {known}) AS known, {expires} AS expires
    FROM {view.relation}
    WHERE {event} IS NOT NULL AND {known} IS NOT NULL
),
looked AS (
    SELECT held.* EXCLUDE (vector), id FROM held JOIN vectors USING (vector)
),
-- Rows in the order in which they became known, each with the longest validity so far.
spans AS (
    SELECT {keys}, id, known, max(expires) OVER so_far AS expires, max(event) OVER so_far AS event
    FROM looked
    WINDOW so_far AS (PARTITION BY {keys}, id ORDER BY known ROWS UNBOUNDED PRECEDING)
    QUALIFY row_number() OVER (PARTITION BY {keys}, id, known ORDER BY expires DESC) = 1
),
firsts AS (
    SELECT {keys}, id, min(known) AS known, arg_min(event, (known, event)) AS event FROM looked GROUP BY ALL
),
past AS (
    SELECT asked.*, held.known AS past_known, held.expires, held.event AS past_event
    FROM asked ASOF LEFT JOIN spans AS held ON {same} AND held.id = asked.id AND asked.at >= held.known
)
SELECT asked.__row,
    CASE
        WHEN held.known IS NULL THEN 'unknown'
        WHEN asked.past_known IS NULL THEN 'future'
        WHEN asked.expires < asked.at THEN 'expired'
        ELSE 'known'
    END AS __origin,
    coalesce(asked.past_event, held.event) AS __event,
    coalesce(asked.past_known, held.known) AS __known
FROM past AS asked LEFT JOIN firsts AS held ON {same} AND held.id = asked.id
"""


def _vector(columns: Sequence[tuple[str, str]]) -> str:
    """Values as one struct, in which a missing value equals a missing one."""
    parts = [f"'v{n}': {_comparable(column, kind)}" for n, (column, kind) in enumerate(columns)]
    return "{" + ", ".join(parts) + "}"


def _comparable(column: str, kind: str) -> str:
    value = f"CAST({quote_identifier(column)} AS {kind})"
    # pandas has no other word for a missing number.
    return f"nullif({value}, 'nan'::{kind})" if kind in ("FLOAT", "DOUBLE") else value


def span_of(text: str) -> timedelta:
    """A length of time such as `7d`, as a view's file has its ttl.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*([smhdw])\s*", text)
    if found is None:
        raise ValueError(
            f"{text!r} is no length of time; write a whole number and s, m, h, d or w, such as 7d"
        )
    return int(found[1]) * timedelta(seconds=_SECONDS[found[2]])


_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_INTEGERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
)


def common_type(one: str, other: str) -> str:
    """The type of DuckDB as which values of two columns are compared.

    A frame may hold a number in less room (FLOAT) or, where some are missing, an integer as a DOUBLE, as pandas does.
    """
    if one == other:
        return one
    if _is_number(one) and _is_number(other):
        if {one, other} <= _INTEGERS:
            return "HUGEINT"
        return "FLOAT" if "FLOAT" in (one, other) else "DOUBLE"
    return "VARCHAR"


def _is_number(kind: str) -> bool:
    return kind in _INTEGERS or kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL")
