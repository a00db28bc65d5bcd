"""Which column comes from which, over all tables: read from SQL, walked up and down, found by name.

What belongs here: plain names in, plain names out. What does not: contracts, files, Dagster. Which statement or
mapping makes which table is said in contracts/lineage.py and operations/lineage.py.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

How = Literal["value", "rows"]
"""`value`: what stands in the column is made of the source. `rows`: the source decides which rows there are or which of
them are joined; no value comes from it, but without it the table cannot be built."""


_LONGEST_REASON = 160


class ColumnRef(NamedTuple):
    """A column of a table.

    Args:
        asset: `store/table`.
        column: its name.
    """

    asset: str
    column: str

    def __str__(self) -> str:
        return f"{self.asset}.{self.column}"


@dataclass(frozen=True)
class Origins:
    """Where the columns of one table come from.

    Args:
        columns: for each column, what its values are made of.
        made: why a column has no source, for each that has none.
        rows: columns that no value comes from, and that decide about the rows: filters, joins, order.
    """

    columns: Mapping[str, Sequence[ColumnRef]]
    made: Mapping[str, str] = field(default_factory=dict)
    rows: Collection[ColumnRef] = ()

    def parents(self) -> set[str]:
        """The tables that anything comes from."""
        return {source.asset for sources in (*self.columns.values(), self.rows) for source in sources}


Lineage = Mapping[str, Origins]
"""The origins of each table, by `store/table`."""


class Step(NamedTuple):
    """A source and what is made of it.

    Args:
        column: the later one; its name is empty where the source decides about rows alone.
        source: the earlier one; its name is empty where it is a table about whose rows something decides.
        how: see `How`.
        distance: steps from the column that was asked about, from 1.
    """

    column: ColumnRef
    source: ColumnRef
    how: How
    distance: int


@dataclass(frozen=True)
class Place:
    """Where a statement finds a table.

    Args:
        schema: as the statement names it; empty where it names none.
        table: the name.
        asset: `store/table`.
        columns: names of the table's columns.
    """

    schema: str
    table: str
    asset: str
    columns: Sequence[str]


def sql_origins(text: str, places: Sequence[Place], dialect: str, names: Iterable[str] = ()) -> Origins:
    """The origins of the columns of one SELECT. One that cannot be followed tells so in place of any source.

    Args:
        text: the statement. Relations of it that are no place are what a program hands in; nothing comes from them.
        places: the tables that it may read.
        dialect: sqlglot's name of the store's SQL.
        names: of its columns, where they are known; the answer spells them so.
    """
    from sqlglot.errors import SqlglotError

    names = tuple(names)  # read twice
    # The parser lowers names where the store does not tell capitals apart.
    known = _by_lower(names)
    try:
        found = _origins(text, places, dialect)
        return Origins(
            {known.get(name.lower(), name): sources for name, sources in found.columns.items()},
            {known.get(name.lower(), name): why for name, why in found.made.items()},
            found.rows,
        )
    # A column that it cannot find is a ValueError of its own, and what lies too deep within itself a RecursionError.
    except (SqlglotError, ValueError, RecursionError) as fault:
        why = f"Its SQL cannot be followed: {str(fault).partition(chr(10))[0]}"
        return Origins({}, dict.fromkeys(names, why))


def _by_lower(names: Iterable[str]) -> dict[str, str]:
    """Names by themselves in lower case; none of those that differ in capitals alone."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for name in names:
        if found.setdefault(name.lower(), name) != name:
            twice.add(name.lower())
    return {lower: name for lower, name in found.items() if lower not in twice}


def _origins(text: str, places: Sequence[Place], dialect: str) -> Origins:
    from sqlglot import exp, parse_one
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    by_name = {(place.schema, place.table): place for place in places}
    spellings = {place.asset: _by_lower(place.columns) for place in places}
    schema = _schema(places)

    def source_of(table: Any, column: str) -> ColumnRef | None:
        place = by_name.get((table.db, table.name)) if isinstance(table, exp.Table) else None
        if place is None:
            return None
        spelled = column if column in place.columns else spellings[place.asset].get(column.lower())
        return ColumnRef(place.asset, spelled) if spelled else None

    parsed = parse_one(text, dialect=dialect)
    for union in parsed.find_all(exp.SetOperation):
        if union.args.get("by_name") and not union.side:
            union.set("side", "FULL")  # else a star over it has the columns of the left side alone
    # Once, which takes most of the time.
    tree = qualify(
        parsed,
        schema=schema,
        dialect=dialect,
        validate_qualify_columns=False,
        identify=False,
    )
    _by_position(tree)
    # Untrimmed: else each step copies the statement, which takes nine tenths of the time.
    nodes: Any = lineage(
        None, tree, schema, dialect=dialect, scope=build_scope(tree), trim_selects=False, copy=False
    )
    columns: dict[str, tuple[ColumnRef, ...]] = {}
    made: dict[str, str] = {}
    for name, node in nodes.items():
        walked = list(node.walk())
        reached = (source_of(each.expression, each.name.rpartition(".")[2].strip('"`')) for each in walked)
        if found := {source for source in reached if source}:
            columns[name] = tuple(sorted(found))
        else:
            ends = dict.fromkeys(
                each.expression.unalias().sql(dialect=dialect, comments=False)
                for each in walked
                if not each.downstream
            )
            made[name] = f"The SQL makes it of no column: {', '.join(ends)}"[:_LONGEST_REASON]
    valued = {source for sources in columns.values() for source in sources}
    return Origins(columns, made, tuple(sorted(_named(tree, source_of) - valued)))


def _by_position(tree: Any) -> None:
    """Give both sides of each UNION BY NAME all columns in one order, since sides are matched by position.

    Args:
        tree: the qualified statement, which is changed.
    """
    from sqlglot import exp

    # The innermost first: a side may be such a union itself.
    for union in reversed(list(tree.find_all(exp.SetOperation))):
        if not union.args.get("by_name"):
            continue
        sides = [side.unnest() for side in (union.left, union.right)]
        parts = [each for side in sides for each in _parts(side)]
        if any(each.is_star or not isinstance(each, exp.Select) for each in parts):
            continue  # over what a program hands in, of which no column is known
        names = dict.fromkeys(name for side in sides for name in side.named_selects)
        for side in sides:
            own = side.named_selects
            for select in _parts(side):
                have = dict(zip(own, select.selects, strict=False))
                ordered = [have.get(name) or exp.alias_(exp.null(), name, quoted=True) for name in names]
                select.set("expressions", ordered)
        union.set("by_name", None)
        union.set("side", None)


def _parts(side: Any) -> Iterator[Any]:
    """The statements that a side of a union is made of."""
    from sqlglot import exp

    side = side.unnest()
    if isinstance(side, exp.SetOperation):
        yield from _parts(side.left)
        yield from _parts(side.right)
    else:
        yield side


def _schema(places: Sequence[Place]) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for place in places:
        columns = dict.fromkeys(place.columns, "VARCHAR")
        if place.schema:
            schema.setdefault(place.schema, {})[place.table] = columns
        else:
            schema[place.table] = columns
    return schema


def _named(tree: Any, source_of: Any) -> set[ColumnRef]:
    """Every column that a statement needs, whatever for; what a star brings along unused is none.

    Args:
        tree: the qualified statement, which is changed.
    """
    from sqlglot.errors import OptimizeError
    from sqlglot.optimizer.pushdown_projections import pushdown_projections
    from sqlglot.optimizer.scope import traverse_scope

    # A star over what a program hands in has no columns that could be left out.
    with suppress(OptimizeError):
        tree = pushdown_projections(tree)
    found = {
        source_of(scope.sources.get(column.table), column.name)
        for scope in traverse_scope(tree)
        for column in scope.columns
    }
    return found - {None}


def upstream(lineage: Lineage, column: ColumnRef) -> Iterator[Step]:
    """What a column's values come from, nearest first; what decides about its own table's rows comes with them.

    Each step is told once, at its shortest distance.
    """
    seen, edge, distance = {column}, [column], 0
    while edge:
        distance += 1
        further: dict[ColumnRef, None] = {}
        for each in edge:
            origins = lineage.get(each.asset)
            if origins is None:
                continue
            for source in origins.columns.get(each.column, ()):
                yield Step(each, source, "value", distance)
                further[source] = None
            if distance == 1:
                for source in origins.rows:
                    yield Step(ColumnRef(each.asset, ""), source, "rows", distance)
        edge = [each for each in further if each not in seen]
        seen.update(edge)


def downstream(lineage: Lineage, column: ColumnRef) -> Iterator[Step]:
    """What breaks if a column goes, nearest first.

    That is what is made of it, the tables whose rows it decides about, and the tables that are made of those.
    """
    later: dict[ColumnRef, list[tuple[ColumnRef, How]]] = {}
    for asset, origins in lineage.items():
        for name, sources in origins.columns.items():
            for source in sources:
                later.setdefault(source, []).append((ColumnRef(asset, name), "value"))
        for source in origins.rows:
            later.setdefault(source, []).append((ColumnRef(asset, ""), "rows"))
        for parent in sorted(origins.parents() - {asset}):
            later.setdefault(ColumnRef(parent, ""), []).append((ColumnRef(asset, ""), "rows"))
    seen, edge, distance = {column}, [column], 0
    while edge:
        distance += 1
        further: dict[ColumnRef, None] = {}
        for each in edge:
            for made, how in later.get(each, ()):
                yield Step(made, each, how, distance)
                further[made] = None
        edge = [each for each in further if each not in seen]
        seen.update(edge)


def find_column(columns: Mapping[str, Collection[str]], name: str) -> ColumnRef:
    """The column that is meant.

    Args:
        columns: column names of each `store/table`.
        name: `store/table.column`, `table.column`, or `column` where one table alone has it.

    Raises:
        ValueError: there is none or several; names those that could be meant.
    """
    prefix, _, bare = name.strip().rpartition(".")
    known = [ColumnRef(asset, column) for asset, names in columns.items() for column in names]
    found = [
        each
        for each in known
        if each.column == bare and (not prefix or prefix in (each.asset, each.asset.rpartition("/")[2]))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        shown = "".join(f"\n  {each}" for each in found)
        raise ValueError(f"{len(found)} columns are called {name!r}; name one of them:{shown}")
    tables = [asset for asset in columns if name in (asset, asset.rpartition("/")[2])]
    if tables:
        shown = "".join(f"\n  {asset}.{column}" for asset in tables for column in columns[asset])
        raise ValueError(f"{name!r} is a table; name one of its columns:{shown}")
    raise ValueError(f"There is no column {name!r}{_nearest(known, name)}.")


def _nearest(known: Sequence[ColumnRef], name: str) -> str:
    """`; did you mean ...?` in the form in which the name was given."""
    forms: dict[str, str] = {}
    for each in known:
        table = f"{each.asset.rpartition('/')[2]}.{each.column}"
        written = str(each) if "/" in name else table if "." in name else each.column
        forms.setdefault(written, written)
    near = get_close_matches(name, forms, 1)
    return f"; did you mean {near[0]!r}?" if near else ": 'ml-assets lineage --html FILE' shows all"
