"""The tree in PostgreSQL's SQL. Names are the project's own; whatever a person wrote is bound.

Every condition is true, false or null, and null counts as false, as WHERE takes it; where a condition is turned
around, null is made false before.

NaN is greater than every number in PostgreSQL, and is as if it were not there in a filter: `< 'NaN'` keeps it out, in
words that an index understands.

What metrics and parameters are asked can be answered in two ways: begin with the runs that an index has for it, which
is right where they are few, or walk through the runs in their order and look up each one's row, which is right where
they are many. The planner cannot tell which: its statistics say nothing of the values of one key. So `probes` are
asked first, which count no further than is needed: what few runs fulfil is where the page begins (`Known.few`), and
everything else a lookup, closed to the planner by OFFSET 0.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ml_assets.lib.canonical_json import JSONError, canonical
from ml_assets.lib.filters.fields import Attribute, Metadata, Metric, Param, Tag
from ml_assets.lib.filters.fields import Field as Asked
from ml_assets.lib.filters.normal import MARKS, lowered
from ml_assets.lib.filters.tree import (
    And,
    Between,
    Compare,
    Fuzzy,
    In,
    IsNull,
    Leaf,
    Like,
    Node,
    Not,
    Or,
    Order,
    Value,
    by_number,
    leaves,
)
from ml_assets.lib.run_values import NUMBER

RUNS, METRICS, PARAMS = "ml_experiments", "ml_run_metrics", "ml_run_params"

FEW = 5_000
"""Runs that are looked up one by one without a thought: among a million, to find a hundred others that are as frequent
takes as many."""

GLANCED_AT = 300
"""Runs that are gone through in their order before anything is asked: of a frequent condition a page is full by then."""

WALKED = 2_000
"""The same before it is asked how many fulfil several conditions together."""

MANY = 40_000
"""Runs that are gone through in search of those few that fulfil the other conditions of a filter as well."""

_STARTED = Attribute("created_at")

FLOATING = ("last", "best", "min", "max", "mean")
"""Statistics that are doubles, each with an index."""

BEGINNING = 100
"""Characters of a parameter's text that its index holds, as `contracts.INDEXED_CHARACTERS` says."""

_LETTERS = 'COLLATE "pg_c_utf8"'
"""Small letters by Unicode, each by itself, whatever the database's own rules are."""

_CODES = 'COLLATE "C"'
"""Texts in the order of their characters' codes, as Python has them."""


@dataclass(frozen=True)
class Known:
    """What was asked before.

    Args:
        runs: by part of the tree, the ids of the runs for which it holds; for an IsNull of those that have a value.
        values: by metric at a step, which the lake was asked, ids of runs and beside them their values.
        few: by part of the tree that holds for `FEW` runs at most, their ids, or None where an index has them.
    """

    runs: Mapping[Node, Sequence[str]] = field(default_factory=dict)
    values: Mapping[Metric, tuple[Sequence[str], Sequence[float]]] = field(default_factory=dict)
    few: Mapping[Node, Sequence[str] | None] = field(default_factory=dict)


Statement = tuple[str, dict[str, Any]]
"""SQL, and its values by name."""


class Bound:
    """The values of a statement, by the names that stand in its text."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __call__(self, value: Any) -> str:
        """The placeholder of a value."""
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f"%({name})s"


@dataclass(frozen=True)
class _Source:
    """Where the value of a field stands.

    Args:
        value: expression of it, compared as text, number or moment.
        table: what it is looked up in by run, empty for the runs themselves.
        key: condition on that table.
        indexed: what its index has after the key; empty if there is none.
        floating: whether it may be NaN.
    """

    value: str
    table: str = ""
    key: str = ""
    indexed: str = ""
    floating: bool = False


@dataclass
class Compiler:
    """Makes the statements of one search.

    Args:
        known: what was asked before; of metrics at steps all has to be.
        bound: takes in the values.
    """

    known: Known = field(default_factory=Known)
    bound: Bound = field(default_factory=Bound)
    _aliases: int = 0

    def condition(self, node: Node, run: str, wanted: bool = True, closed: bool = False) -> str:
        """Condition that a run is what the tree asks for.

        Args:
            node: the tree.
            run: alias of the table of runs.
            wanted: False turns the condition around.
            closed: look up each run, where an index was asked before and has too many.
        """
        if wanted and node in self.known.few:
            return self._among_few(node, run)
        if isinstance(node, Not):
            return self.condition(node.part, run, not wanted, closed)
        if isinstance(node, And | Or):
            if isinstance(node, And) == wanted:
                parts = [self.condition(part, run, wanted, closed) for part in node.parts]
                return f"({' AND '.join(parts)})" if parts else "true"
            if all(_is_plain(part) or _indexed(part) for part in node.parts):
                either = [self.condition(part, run, wanted, closed) for part in node.parts]
                return f"({' OR '.join(either)})" if either else "false"
            return self._union(node.parts, run, wanted)
        return self._leaf(node, run, wanted, closed)

    def _union(self, parts: Sequence[Node], run: str, wanted: bool) -> str:
        """Condition that one of several parts holds, as the union of their runs: below a plain OR no index serves."""
        selects = [self._runs_of(part, wanted) for part in parts]
        union = self._alias()
        return f"EXISTS (SELECT FROM ({' UNION ALL '.join(selects)}) AS {union} (id) WHERE {union}.id = {run}.id)"

    def _runs_of(self, node: Node, wanted: bool) -> str:
        """SELECT of the ids of the runs for which a part holds."""
        alias = self._alias()
        leaf = _indexed(node)
        if wanted and leaf is not None and node not in self.known.runs:
            source, rows = self._rows(leaf, alias)
            return f"SELECT {alias}.run_id FROM {source.table} AS {alias} WHERE {rows}"
        return f"SELECT {alias}.id FROM {RUNS} AS {alias} WHERE {self.condition(node, alias, wanted)}"

    def some(self, node: Node, most: int, ids: bool = True, times: bool = False) -> str:
        """SELECT of the runs for which a part holds, but of one more than `most` of each branch.

        Args:
            ids: with their ids; without them an index has all that is needed to count.
            times: with the times at which they began; for a part that an index has by itself.
        """
        if isinstance(node, Or):
            return " UNION ALL ".join(f"({self.some(part, most, ids)})" for part in node.parts)
        alias, limit = self._alias(), self.bound(most + 1)
        if (leaf := _indexed(node)) is None:
            condition = self.condition(node, alias)
            return f"SELECT {f'{alias}.id' if ids else '1'} FROM {RUNS} AS {alias} WHERE {condition} LIMIT {limit}"
        source, rows = self._rows(leaf, alias)
        # In the order of the index, lest the planner read the whole table in the hope of many.
        return (
            f"SELECT {f'{alias}.run_id' if ids else '1'}{f', {alias}.created_at' if times else ''} "
            f"FROM {source.table} AS {alias} WHERE {rows} "
            f"ORDER BY {alias}.key, {source.indexed} LIMIT {limit}"
        )

    def _among(self, node: Node, run: str, wanted: bool) -> str:
        among = f"{run}.id = ANY({self.bound(list(self.known.runs[node]))}::text[])"
        return among if wanted else f"NOT {among}"

    def _among_few(self, node: Node, run: str) -> str:
        ids = self.known.few[node]
        # Twice as many, should some be added after they were counted.
        found = (
            self.some(node, 2 * FEW)
            if ids is None
            else f"SELECT jsonb_array_elements_text({self.bound(json.dumps(list(ids)))}::jsonb)"
        )
        # As an array of which the planner knows nothing: it takes such for short, and looks up one id after the other.
        return f"{run}.id = ANY(ARRAY({found}))"

    def _leaf(self, leaf: Leaf, run: str, wanted: bool, closed: bool) -> str:
        there = wanted != isinstance(leaf, IsNull)
        if leaf in self.known.runs:
            return self._among(leaf, run, there)
        if not _is_plain(leaf):
            alias = self._alias()
            source, rows = self._rows(leaf, alias)
            end = " OFFSET 0" if closed and there and _has_index(leaf) else ""
            exists = f"EXISTS (SELECT FROM {source.table} AS {alias} WHERE {rows} AND {alias}.run_id = {run}.id{end})"
            return exists if there else f"NOT {exists}"
        source = self.source(leaf.field, run, by_number(leaf))
        if isinstance(leaf, IsNull):
            return f"({source.value} IS NOT NULL)" if there else f"({source.value} IS NULL)"
        condition = self.holds(leaf, source)
        return f"({condition})" if wanted else f"(({condition}) IS NOT TRUE)"

    def _rows(self, leaf: Leaf, alias: str) -> tuple[_Source, str]:
        """Condition on the rows of another table for which a leaf holds; for IsNull on those that have a value."""
        source = self.source(leaf.field, alias, by_number(leaf))
        if isinstance(leaf, IsNull):
            return (
                source,
                f"{source.key} AND {source.value} {_BELOW_NAN if source.floating else 'IS NOT NULL'}",
            )
        return source, f"{source.key} AND {self.holds(leaf, source)}"

    def source(self, asked: Asked, alias: str, number: bool) -> _Source:
        """Where a field's value stands, seen from the alias of its table."""
        if isinstance(asked, Attribute):
            value = f"{alias}.{'id' if asked.name == 'run_id' else asked.name}"
            if asked.name == "duration_s":
                value = f"extract(epoch FROM {alias}.completed_at - {alias}.created_at)::float8"
            return _Source(_number_of(value) if number and asked.kind == "text" else value)
        if isinstance(asked, Tag | Metadata):
            column = "tags" if isinstance(asked, Tag) else "metadata"
            value = f"({alias}.{column} ->> {self.bound(asked.key)}::text)"
            return _Source(_number_of(value) if number else value)
        key = f"{alias}.key = {self.bound(asked.key)}"
        if isinstance(asked, Param):
            if number:
                return _Source(f"{alias}.number", PARAMS, key, f"{alias}.number", floating=True)
            return _Source(f"{alias}.text", PARAMS, key, f"left({alias}.text, {BEGINNING})")
        if asked.step is not None:
            raise ValueError(f"{asked} is asked of the lake; give the runs for which it holds")
        value = f"{alias}.{asked.statistic}"
        floating = asked.statistic in FLOATING
        return _Source(value, METRICS, key, value if floating else "", floating)

    def holds(self, leaf: Leaf, source: _Source) -> str:
        """Condition on a value."""
        value, bound = source.value, self.bound
        no = "NOT " if getattr(leaf, "negated", False) else ""
        guard = f" AND {value} {_BELOW_NAN}" if source.floating else ""
        if isinstance(leaf, Compare):
            ordered = leaf.operator not in ("=", "!=") and isinstance(leaf.value, str)
            condition = f"{value}{f' {_CODES}' if ordered else ''} {leaf.operator} {bound(leaf.value)}"
            if leaf.operator == "=" and isinstance(leaf.field, Param) and isinstance(leaf.value, str):
                return f"left({value}, {BEGINNING}) = {bound(leaf.value[:BEGINNING])} AND {condition}"
            if leaf.operator == "=" and isinstance(leaf.field, Tag) and isinstance(leaf.value, str):
                return f"{self._contains(leaf.field.key, leaf.value, source)} AND {condition}"
            return condition if leaf.operator in ("=", "<", "<=") else condition + guard
        if isinstance(leaf, Between):
            codes = f" {_CODES}" if isinstance(leaf.low, str) else ""
            return f"{value}{codes} {no}BETWEEN {bound(leaf.low)} AND {bound(leaf.high)}{guard if no else ''}"
        if isinstance(leaf, In):
            some = f"{bound(list(leaf.values))}::{_array_of(leaf.values)}"
            if no:
                return f"{value} <> ALL({some}){guard}"
            if isinstance(leaf.field, Param) and isinstance(leaf.values[0], str):
                beginnings = bound([str(each)[:BEGINNING] for each in leaf.values])
                return f"left({value}, {BEGINNING}) = ANY({beginnings}::text[]) AND {value} = ANY({some})"
            return f"{value} = ANY({some})"
        if isinstance(leaf, Like):
            if leaf.ignore_case:
                return f"lower({value} {_LETTERS}) {no}LIKE {bound(lowered(leaf.pattern))}"
            return f"{value} {no}LIKE {bound(leaf.pattern)}"
        if isinstance(leaf, Fuzzy):
            plain = f"lower(regexp_replace(normalize({value}, NFKD), '[{MARKS}]', '', 'g') {_LETTERS})"
            return f"{no}({' AND '.join(f'strpos({plain}, {bound(word)}) > 0' for word in leaf.words)})"
        raise TypeError(f"{leaf} is no condition on a value")

    def _contains(self, key: str, text: str, source: _Source) -> str:
        """Condition that the index on tags understands: a tag is this text, or JSON of this text."""
        column = source.value.removeprefix("(").partition(" ")[0]
        documents = [json.dumps({key: text}, ensure_ascii=False)]
        with suppress(JSONError):  # no JSON: a text and nothing else
            documents.append(f"{{{json.dumps(key, ensure_ascii=False)}: {canonical(text)}}}")
        return f"({' OR '.join(f'{column} @> {self.bound(each)}::jsonb' for each in documents)})"

    def _alias(self) -> str:
        self._aliases += 1
        return f"t{self._aliases}"


@dataclass
class DocumentCompiler(Compiler):
    """Makes conditions on documents, over the table of their chunks' vectors."""

    def source(self, asked: Asked, alias: str, number: bool) -> _Source:
        """See `Compiler`."""
        if not isinstance(asked, Attribute):
            return super().source(asked, alias, number)
        column = {"source": "metadata ->> 'source'", "updated_at": "created_at"}.get(asked.name, asked.name)
        value = f"({alias}.{column})"
        return _Source(_number_of(value) if number and asked.kind == "text" else value)


_BELOW_NAN = "< 'NaN'::float8"


def _parts(tree: Node) -> tuple[Node, ...]:
    """What has to hold together."""
    return tree.parts if isinstance(tree, And) else (tree,)


def _is_plain(node: Node) -> bool:
    """Whether a condition asks the row of the run and nothing else."""
    if isinstance(node, And | Or):
        return all(map(_is_plain, node.parts))
    if isinstance(node, Not):
        return _is_plain(node.part)
    return isinstance(node.field, Attribute | Tag | Metadata)


def _indexed(node: Node) -> Leaf | None:
    """What is asked of an index that has the runs for which a part holds: a leaf, or the IS NULL that a part is NOT."""
    if isinstance(node, Not):
        return node.part if isinstance(node.part, IsNull) and _has_index(node.part) else None
    return None if isinstance(node, And | Or | IsNull) or not _has_index(node) else node


def _has_index(leaf: Leaf) -> bool:
    if isinstance(leaf.field, Metric):
        return leaf.field.step is None and leaf.field.statistic in FLOATING
    return isinstance(leaf.field, Param) and not isinstance(leaf, Like | Fuzzy)


@dataclass(frozen=True)
class Probe:
    """What to ask about a part of a tree that may hold for few runs.

    Args:
        part: the part.
        others: what else has to hold.
        known: see `Compiler`.
    """

    part: Node
    others: And
    known: Known

    def count(self, most: int) -> Statement:
        """Counts the runs for which the part holds, but hardly beyond as many."""
        compiler = Compiler(self.known)
        some = compiler.some(self.part, most, ids=False)
        return f"SELECT count(*) FROM ({some}) AS found", compiler.bound.values

    def joint(self) -> Statement:
        """Selects the ids of the runs for which all else holds, too, but no more than tell that those are not few."""
        compiler = Compiler(self.known)
        some = compiler.some(self.part, MANY)
        by_id = _by_id(self.others)
        run = "found" if by_id else "r"
        rest = [compiler.condition(each, run, closed=True) for each in self.others.parts]
        held = "SELECT" if by_id else f"SELECT FROM {RUNS} AS r"
        where = " AND ".join(rest if by_id else ["r.id = found.id", *rest])
        # One run after the other, so that whatever the planner expects it ends when there are enough.
        return (
            f"SELECT found.id FROM ({some}) AS found (id) CROSS JOIN LATERAL ({held} WHERE {where} OFFSET 0) AS held "
            f"LIMIT {FEW + 1}",
            compiler.bound.values,
        )


def probes(tree: Node, order: Sequence[Order], known: Known) -> list[Probe]:
    """What to ask before a page.

    What asks for the field that comes first in the order is not asked: its index is walked through anyway.
    """
    found = []
    parts = _parts(tree)
    for part in parts:
        branches = part.parts if isinstance(part, Or) else (part,)
        indexed = all(_is_plain(each) or _indexed(each) for each in branches)
        if indexed and not all(map(_is_plain, branches)) and not _on_first(part, order):
            found.append(Probe(part, And(tuple(each for each in parts if each != part)), known))
    return found


def _on_first(node: Node, order: Sequence[Order]) -> bool:
    """Whether a part holds only for runs that have the value which comes first in the order."""
    if not order or isinstance(node, And | Or | IsNull):
        return False
    first = order[0].field
    if isinstance(node, Not):
        return (
            isinstance(node.part, IsNull)
            and node.part.field == first
            and isinstance(first, Metric | Attribute)
        )
    return node.field == first and (by_number(node) or isinstance(first, Metric | Attribute))


def _number_of(value: str) -> str:
    """The number that a text is, as `run_values.number_of` tells it; a cast alone fails on what is beyond doubles."""
    return (
        f"(CASE WHEN {value} ~ '^({NUMBER})$' THEN CASE WHEN pg_input_is_valid({value}, 'float8') "
        f"THEN ({value})::float8 WHEN {value} ~ '[eE]-|^[+-]?0*[.]' THEN 0 WHEN {value} ~ '^-' THEN '-Infinity' "
        "ELSE 'Infinity' END END)"
    )


def _array_of(values: Iterable[Value]) -> str:
    first = next(iter(values))
    return "text[]" if isinstance(first, str) else "float8[]" if isinstance(first, float) else "timestamptz[]"


@dataclass(frozen=True)
class _Key:
    """What pages are ordered by, one after the other.

    Args:
        value: expression, null where a run does not have it.
        bare: the same among the runs that have it, as an index knows it.
        join: of the table that it stands in; to be made an inner join where only runs with it are wanted.
        there: condition that a run has it; empty if every run does.
        kind: PostgreSQL's type.
    """

    value: str
    bare: str
    join: str
    there: str
    kind: str
    descending: bool


@dataclass(frozen=True)
class Cursor:
    """The last run of a page: where the next one begins.

    Args:
        values: its values of the order's keys.
        id: its id.
    """

    values: tuple[Any, ...]
    id: str


def page_statements(
    tree: Node,
    order: Sequence[Order],
    limit: int,
    after: Cursor | None = None,
    known: Known | None = None,
    shown: Sequence[Metric] = (),
) -> list[Statement]:
    """The statements whose rows, one statement after the other, are the runs of a page; each may give up to `limit`.

    There are two if a run may lack what comes first in the order: those that have it, in the order of its index, and
    then the others. The columns are the values of the order's keys, those of `shown` and those of `ml_experiments`.

    Args:
        tree: which runs.
        order: in which order; ties are ordered by id.
        limit: rows of a statement.
        after: only the runs after this one.
        known: see `Compiler`.
        shown: statistics whose values are wanted besides.
    """
    statements = []
    only_present = any(_on_first(part, order) for part in _parts(tree))
    lacking = after is not None and bool(after.values) and after.values[0] is None
    for present in (True, False):
        compiler = Compiler(known or Known())
        keys = [each for n, term in enumerate(order) for each in _keys(compiler, term, f"o{n}")]
        nullable = bool(keys) and bool(keys[0].there)
        if (present and lacking) or not (present or (nullable and not only_present)):
            continue
        # A place among the runs that have the first key says nothing of those that lack it.
        from_here = after if after is not None and (present or lacking) else None
        first = order[0].field if present and nullable else None  # whose value the walk has at hand
        others = [
            "page.k0" if metric == first else _value_of(compiler, metric, f"s{n}")
            for n, metric in enumerate(shown)
        ]
        sql = _page_statement(
            compiler, tree, order, keys, others, present and nullable, not present, limit, from_here
        )
        statements.append((sql, compiler.bound.values))
    return statements


def walk(
    tree: Node,
    order: Sequence[Order],
    limit: int,
    after: Cursor | None,
    known: Known,
    shown: Sequence[Metric],
    most: int,
) -> Statement | None:
    """A page out of the next runs in their order alone; None where the order is none of the runs' own.

    Args:
        most: how many runs are gone through; for the others see `page_statements`.
    """
    if [term.field for term in order] != [_STARTED]:
        return None
    compiler = Compiler(known)
    keys = _keys(compiler, order[0], "o0")
    others = [_value_of(compiler, metric, f"s{n}") for n, metric in enumerate(shown)]
    beyond = f" WHERE {_after(compiler.bound, keys, False, False, after)}" if after is not None else ""
    down = "DESC" if order[0].descending else "ASC"
    columns = "r.id, r.created_at" if _by_id(tree) else "r.*"
    runs = (
        f"(SELECT {columns} FROM {RUNS} AS r{beyond} ORDER BY r.created_at {down}, r.id "
        f"LIMIT {compiler.bound(most)})"
    )
    sql = _page_statement(compiler, tree, order, keys, others, False, False, limit, None, runs)
    return sql, compiler.bound.values


def _page_statement(
    compiler: Compiler,
    tree: Node,
    order: Sequence[Order],
    keys: Sequence[_Key],
    shown: Sequence[str],
    inner: bool,
    lacking: bool,
    limit: int,
    after: Cursor | None,
    runs: str = RUNS,
) -> str:
    bound = compiler.bound
    if (few := _few_by_time(tree, order, compiler.known)) is not None:
        return _of_few_by_time(compiler, tree, few, order[0], shown, limit, after)
    # All together may be known, too.
    parts = (tree,) if tree in compiler.known.few else _parts(tree)
    # Asked of the row that the order is walked by, so that the walk begins and ends with them.
    direct = {part: leaf for part in parts if inner and _on_first(part, order) and (leaf := _indexed(part))}
    where = [compiler.condition(part, "r", closed=True) for part in parts if part not in direct]
    if direct:
        source = compiler.source(order[0].field, "o0", isinstance(order[0].field, Param))
        where += [compiler.holds(leaf, source) for leaf in direct.values() if not isinstance(leaf, IsNull)]
    joins = list(dict.fromkeys(key.join for key in keys if key.join))
    if inner:
        where.insert(0, keys[0].there)
        keys = [replace(keys[0], value=keys[0].bare), *keys[1:]]
        joins = [join.removeprefix("LEFT ") if join == keys[0].join else join for join in joins]
    if lacking:
        where.insert(0, f"{keys[0].value} IS NULL")
    if after is not None:
        where.append(_after(bound, keys, inner, lacking, after))
    picked = ", ".join(["r.id", *(f"{key.value} AS k{n}" for n, key in enumerate(keys))])
    sorting = [
        f"{key.value} {'DESC' if key.descending else 'ASC'}{'' if n == 0 and (inner or not key.there) else ' NULLS LAST'}"
        for n, key in enumerate(keys)
        if not (n == 0 and lacking)
    ]
    again = [f"page.k{n} {'DESC' if key.descending else 'ASC'} NULLS LAST" for n, key in enumerate(keys)]
    columns = ", ".join([*(f"page.k{n}" for n in range(len(keys))), *shown, "run.*"])
    # The rows of the page are fetched when it is known which they are: sorting carries ids and keys alone.
    return (
        f"SELECT {columns} FROM (SELECT {picked} FROM {runs} AS r {' '.join(joins)} "
        f"WHERE {' AND '.join(where) or 'true'} ORDER BY {', '.join([*sorting, 'r.id'])} LIMIT {bound(limit)}) AS page "
        f"JOIN {RUNS} AS run ON run.id = page.id ORDER BY {', '.join([*again, 'run.id'])}"
    )


def _few_by_time(tree: Node, order: Sequence[Order], known: Known) -> Node | None:
    """The part that few runs fulfil, if they can be put in order before they are looked up: each row of a metric or a
    parameter tells when its run began."""
    if [term.field for term in order] != [_STARTED]:
        return None
    return next(
        (part for part in _parts(tree) if part in known.few and known.few[part] is None and _indexed(part)),
        None,
    )


def _of_few_by_time(
    compiler: Compiler,
    tree: Node,
    few: Node,
    term: Order,
    shown: Sequence[str],
    limit: int,
    after: Cursor | None,
) -> str:
    """A page of the runs of an index, the first of which alone are looked up."""
    bound, down = compiler.bound, "DESC" if term.descending else "ASC"
    # Twice as many, should some be added after they were counted.
    found = compiler.some(few, 2 * FEW, times=True)
    key = _Key("few.created_at", "few.created_at", "", "", "timestamptz", term.descending)
    beyond = f" WHERE {_after(bound, [key], False, False, after, 'few')}" if after is not None else ""
    others = [part for part in _parts(tree) if part != few]
    where = [compiler.condition(part, "few" if _by_id(part) else "run", closed=True) for part in others]
    columns = ", ".join(["few.created_at AS k0", *shown, "run.*"])
    return (
        f"SELECT {columns} FROM (SELECT * FROM ({found}) AS few (id, created_at){beyond} "
        f"ORDER BY few.created_at {down}, few.id OFFSET 0) AS few CROSS JOIN LATERAL "
        # One after the other, until the page is full. Nor has each of them to be among the runs: the tables are written
        # one by one.
        f"(SELECT * FROM {RUNS} AS run WHERE run.id = few.id OFFSET 0) AS run "
        f"WHERE {' AND '.join(where) or 'true'} ORDER BY few.created_at {down}, few.id LIMIT {bound(limit)}"
    )


def _by_id(node: Node) -> bool:
    """Whether a condition asks for no more of a run than its id."""
    return not any(isinstance(leaf.field, Attribute | Tag) for leaf in leaves(node))


def _after(
    bound: Bound, keys: Sequence[_Key], inner: bool, lacking: bool, after: Cursor, run: str = "r"
) -> str:
    """Condition that a run comes after another one."""
    condition = f"{run}.id > {bound(after.id)}"
    for n, (key, value) in reversed(list(enumerate(zip(keys, after.values, strict=True)))):
        if value is None:
            # The first one is asked for anyway where all lack it.
            condition = condition if n == 0 and lacking else f"({key.value} IS NULL AND {condition})"
            continue
        there = f"{bound(value)}::{key.kind}"
        further = f"{key.value} {'<' if key.descending else '>'} {there}"
        always = not key.there or (n == 0 and inner)
        beyond = further if always else f"{further} OR {key.value} IS NULL"
        condition = f"({beyond} OR ({key.value} = {there} AND {condition}))"
        if n == 0 and always:  # in words that an index understands
            condition = f"({key.value} {'<=' if key.descending else '>='} {there} AND {condition})"
    return condition


def _keys(compiler: Compiler, term: Order, alias: str) -> "list[_Key]":
    """The keys of a term. What may be text or number has two: numbers come first, by value."""
    asked, down = term.field, term.descending
    if isinstance(asked, Attribute):
        value = compiler.source(asked, "r", False).value
        kind = {"text": "text", "time": "timestamptz", "number": "float8"}[asked.kind]
        never = asked.name in ("run_id", "experiment", "status", "origin", "created_at")
        return [_Key(value, value, "", "" if never else f"{value} IS NOT NULL", kind, down)]
    if isinstance(asked, Tag):
        text = compiler.source(asked, "r", False).value
        number = _number_of(text)
        return [
            _Key(number, number, "", f"{number} IS NOT NULL", "float8", down),
            _Key(text, text, "", f"{text} IS NOT NULL", "text", down),
        ]
    if isinstance(asked, Metric) and asked.step is not None:
        ids, values = map(compiler.bound, map(list, compiler.known.values[asked]))
        join = f"LEFT JOIN unnest({ids}::text[], {values}::float8[]) AS {alias} (run_id, value) ON {alias}.run_id = r.id"
        return [_Key(f"{alias}.value", f"{alias}.value", join, f"{alias}.value IS NOT NULL", "float8", down)]
    source = compiler.source(asked, alias, isinstance(asked, Param))
    join = f"LEFT JOIN {source.table} AS {alias} ON {alias}.run_id = r.id AND {source.key}"
    kind = "timestamptz" if asked.kind == "time" else "float8"
    first = _Key(
        f"nullif({source.value}, 'NaN'::float8)" if source.floating else source.value,
        source.value,
        join,
        f"{source.value} {_BELOW_NAN if source.floating else 'IS NOT NULL'}",
        kind,
        down,
    )
    if isinstance(asked, Metric):
        return [first]
    return [first, _Key(f"{alias}.text", f"{alias}.text", join, f"{alias}.text IS NOT NULL", "text", down)]


def _value_of(compiler: Compiler, metric: Metric, alias: str) -> str:
    source = compiler.source(metric, alias, False)
    return f"(SELECT {source.value} FROM {source.table} AS {alias} WHERE {alias}.run_id = run.id AND {source.key})"
