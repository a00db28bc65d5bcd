"""Which column comes from which, over all tables of the graph: from the SQL that makes a table, else as declared.

What belongs here: which statement makes which table, and the answers of `ml-assets lineage`. What is declared is in
contracts/lineage.py; how a statement is read and how the graph is walked is in lib/lineage.py.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from ml_assets.contracts import INHERITED, Tables, tables
from ml_assets.contracts.feature_files import feature_files
from ml_assets.contracts.lineage import BESIDE, declared, external
from ml_assets.errors import Refusal
from ml_assets.lib.lineage import (
    ColumnRef,
    Lineage,
    Origins,
    Place,
    downstream,
    find_column,
    sql_origins,
    upstream,
)
from ml_assets.lib.lineage_page import ShownColumn, TableFacts, lineage_page
from ml_assets.operations.judged_runs import judged_runs_sql
from ml_assets.operations.page_file import page_part
from ml_assets.operations.run_tables import METRICS_SQL, PARAMS_SQL
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import pyarrow as pa

_FILES: Mapping[str, tuple[str, str]] = {
    "postgres/ml_experiments": ("duckdb", "duckdb/experiments/ml_experiments.sql"),
    "postgres/ml_run_metrics": ("duckdb", METRICS_SQL),
    "postgres/ml_run_params": ("duckdb", PARAMS_SQL),
    "postgres/run_leaderboard": ("postgres", "postgres/run_leaderboard.sql"),
    "serving/online_features": ("duckdb", "duckdb/serving/online_features.sql"),
    "clickhouse/performance_hourly": ("clickhouse", "clickhouse/performance_hourly.sql"),
    "clickhouse/performance_daily": ("clickhouse", "clickhouse/performance_daily.sql"),
    "clickhouse/performance_sketches": ("clickhouse", "clickhouse/performance_sketches.sql"),
}
"""The store that runs the SELECT of a table, and its file."""


class ColumnLineage:
    """The lineage of the tables of the graph. A table's SQL is read when the table is first asked about.

    Args:
        contracts: of all tables, by asset.
        selects: the texts of the feature files, by asset; one that was never built has no contract yet.
        known_times: by asset, the column of the time from which a row of such a file could be read, where it names one.
    """

    def __init__(
        self,
        contracts: Tables,
        selects: Mapping[str, str],
        known_times: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._contracts = contracts
        self._selects = selects
        self._known_times = known_times
        self._known: dict[str, Origins] = {}

    def of(self, asset: str) -> Origins | None:
        """Where the columns of a table come from; None for a table that is not one of the graph's.

        A statement that cannot be followed takes nothing else down: its columns tell so in place of their sources.
        """
        if asset not in self._contracts and asset not in self._selects:
            return None
        if asset not in self._known:
            self._known[asset] = self._declared.get(asset) or self._read(asset)
        return self._known[asset]

    @cached_property
    def _declared(self) -> Lineage:
        return declared(self._contracts, self._known_times)

    def whole(self) -> Lineage:
        """The origins of every table."""
        assets = dict.fromkeys([*self._contracts, *self._selects])
        return {asset: origins for asset in assets if (origins := self.of(asset))}

    def columns(self) -> dict[str, tuple[str, ...]]:
        """The column names of every table, and of what lies outside."""
        known = {asset: contract.names for asset, contract in self._contracts.items()}
        unbuilt = {
            asset: (*origins.columns, *origins.made)
            for asset in self._selects
            if asset not in known and (origins := self.of(asset))
        }
        return {**external(), **known, **unbuilt}

    def shown_columns(self) -> dict[str, list[ShownColumn]]:
        """The same with what is said of each column."""
        return {
            asset: [self._shown(asset, name) for name in names] for asset, names in self.columns().items()
        }

    def _shown(self, asset: str, name: str) -> ShownColumn:
        contract = self._contracts.get(asset)
        if contract is None:
            return ShownColumn(name, description=INHERITED.get(name, ""))
        column = contract.by_name[name]
        return ShownColumn(name, column.type, column.description or INHERITED.get(name, ""))

    def _read(self, asset: str) -> Origins:
        names = self._contracts[asset].names if asset in self._contracts else ()
        dialect, text = self._statement(asset)
        if not text:
            return Origins({})
        found = sql_origins(text, self._places(dialect), dialect, names)
        beside = {
            column: tuple(sorted({source for each in given for source in found.columns.get(each, ())}))
            for column, given in BESIDE.get(asset, {}).items()
        }
        return Origins({**found.columns, **beside}, found.made, found.rows)

    def _statement(self, asset: str) -> tuple[str, str]:
        """The dialect and the text of the SELECT that makes a table; no text if none does."""
        if asset in self._selects:
            return "duckdb", self._selects[asset]
        if asset not in _FILES:
            return "", ""
        dialect, file = _FILES[asset]
        text = read_sql(file)
        return dialect, judged_runs_sql(text) if asset == "postgres/run_leaderboard" else text

    def _places(self, store: str) -> Sequence[Place]:
        """The tables that a statement of a store may name."""
        return [
            Place(contract.schema if store == "duckdb" else "", contract.table, asset, contract.names)
            for asset, contract in self._contracts.items()
            if contract.store == store
        ]


def graph_lineage(settings: Settings, contracts: Tables | None = None) -> ColumnLineage:
    """The lineage of the graph that these settings make."""
    files = [file for file in feature_files(settings) if not file.is_taken]
    return ColumnLineage(
        tables(settings) if contracts is None else contracts,
        {file.asset: file.text for file in files},
        {file.asset: file.header.known_time for file in files if file.header and file.header.known_time},
    )


def lineage_of_column(settings: Settings, column: str, later: bool = False) -> "pa.Table":
    """The answer of `Stack.lineage`."""
    import pyarrow as pa

    graph = graph_lineage(settings)
    start = the_column(graph, column)
    steps = (downstream if later else upstream)(graph.whole(), start)
    rows = [
        {
            "asset": step.column.asset,
            "column": step.column.column or None,
            "source_asset": step.source.asset,
            "source_column": step.source.column or None,
            "how": step.how,
            "distance": step.distance,
        }
        for step in steps
    ]
    text = ("asset", "column", "source_asset", "source_column", "how")
    return pa.Table.from_pylist(
        rows, pa.schema([*((n, pa.string()) for n in text), ("distance", pa.int64())])
    )


def the_column(graph: ColumnLineage, name: str) -> ColumnRef:
    """The column that is meant.

    Raises:
        Refusal: there is none or several of that name.
    """
    try:
        return find_column(graph.columns(), name)
    except ValueError as fault:
        raise Refusal(str(fault)) from fault


def page_of_graph(
    graph: ColumnLineage, facts: Mapping[str, TableFacts], chosen: ColumnRef | None = None
) -> str:
    """The whole graph as one HTML page.

    Args:
        graph: the lineage of its tables.
        facts: what is known of them.
        chosen: the column that is lit at first.
    """
    style, script = (page_part(name) for name in ("lineage.css", "lineage.js"))
    return lineage_page(graph.shown_columns(), graph.whole(), facts, datetime.now(UTC), style, script, chosen)
