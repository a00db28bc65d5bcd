"""The stack as one object, for notebooks and scripts: what is there, questions in SQL, tables to files.

What belongs here: finding the store that is meant, and refusing in a sentence what cannot be. What a store answers and
how a file is written is said in its room. Nothing here changes a store or makes a home.
"""

import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal
from ml_assets.home import is_home
from ml_assets.settings import Settings, read_settings

if TYPE_CHECKING:
    from datetime import date

    import pyarrow as pa

    from ml_assets.contracts import Contract
    from ml_assets.lib.why import Explanation
    from ml_assets.operations.experiments import Experiments
    from ml_assets.operations.features import Features
    from ml_assets.operations.light import LightStack
    from ml_assets.operations.performance import Performance
    from ml_assets.operations.search import Search
    from ml_assets.tables.store import TableStore


def connect(
    home: Path | str | None = None, settings: Settings | None = None, read_only: bool = False
) -> "Stack":
    """The stack of a home; nothing is opened, started or made by that.

    A home of a former release is brought to this one's format when a store is first asked (docs/upgrade.md).

    Args:
        home: its folder; if None, it is found as home.py says.
        settings: all that is to hold, in place of the environment and a `.env`.
        read_only: let PostgreSQL, the lake, ClickHouse and SQLite refuse every change, and open them as the users who
            read, where the settings name such. ML_ASSETS_READ_ONLY=1 does the same.

    Raises:
        Refusal: both were given, a setting cannot be read, or the home is of a newer release.
    """
    # Libraries of ours import tqdm, which warns in a notebook without ipywidgets of bars that nobody here draws.
    warnings.filterwarnings("ignore", message="IProgress not found")
    found = _settings(home, settings)
    return Stack(found.for_reading() if read_only else found)


def connect_light(home: Path | str | None = None, settings: Settings | None = None) -> "LightStack":
    """The light registry of a home; as `connect`."""
    from ml_assets.operations.light import LightStack

    return LightStack(_settings(home, settings))


def _settings(home: Path | str | None, settings: Settings | None) -> Settings:
    if settings is not None and home is not None:
        raise Refusal("Settings have a home of their own: give either home or settings.")
    from ml_assets.services.home import refuse_newer_home

    found = settings or read_settings(**({} if home is None else {"home": Path(home)}))
    refuse_newer_home(found.home)
    return found


class Stack:
    """All stores of one home.

    Embedded servers that do not run are started to be asked, if there is a home at all, and run on until
    `ml-assets down`.

    Args:
        settings: where the stores are.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def _resources(self) -> dict[str, Any]:
        from ml_assets.resources import store_resources

        self._open()
        return store_resources(self.settings)

    def _open(self) -> None:
        """Bring the home to this release's format; one small file is read where it is."""
        from ml_assets.maintenance.upgrade import open_home

        open_home(self.settings)

    def __repr__(self) -> str:
        return f"<ml_assets.Stack of {self.home}>"

    @property
    def home(self) -> Path:
        """The folder of everything that is kept."""
        return self.settings.home

    @cached_property
    def experiments(self) -> "Experiments":
        """Runs: record them, find them, look at them."""
        from ml_assets.operations.experiments import Experiments

        return Experiments(self.settings, self._resources)

    @cached_property
    def features(self) -> "Features":
        """Feature tables: which there are, and their values at the times that are asked for."""
        from ml_assets.operations.features import Features

        return Features(self.settings, self._resources)

    @cached_property
    def performance(self) -> "Performance":
        """How models do over time: trends, drift, regressions, alerts."""
        from ml_assets.operations.performance import Performance

        return Performance(self.settings, self._resources)

    @cached_property
    def search(self) -> "Search":
        """What is found by words and by meaning: documents, runs, collections of your own."""
        from ml_assets.operations.search import Search

        return Search(self.settings, self._resources)

    def status(self, verify: bool = False) -> dict[str, Any]:
        """Each store's health, tables, rows and content hashes, as `ml-assets status --json` prints them.

        It starts no server: one that does not run is `down`.

        Args:
            verify: recompute the content hashes from the stores, and list those that differ as `differences`.
        """
        from ml_assets.maintenance.disk import disk_use
        from ml_assets.maintenance.status import quarantined_rows, status_json, stores_status

        self._open()
        stores, differences = stores_status(self.settings, verify)
        quarantined = quarantined_rows(self.settings, stores)
        disk = disk_use(self.settings, stores, lambda fault: warnings.warn(fault, stacklevel=3))
        return status_json(self.settings, stores, quarantined, differences if verify else None, disk)

    def tables(self) -> "pa.Table":
        """All tables that hold something or could: store, table, rows, asset (its key) and content hash.

        A store that does not answer is warned of, and its tables are missing.

        Raises:
            Refusal: there is no home, and no store is a server.
        """
        import pyarrow as pa

        from ml_assets.maintenance.status import stores_status
        from ml_assets.stores.registry import STORES

        if all(self.settings.mode(kind.name) == "embedded" for kind in STORES):
            self.settings.require_home()
        self._open()
        stores, _ = stores_status(self.settings, start=is_home(self.home))
        for kind in STORES:
            if kind.name not in stores:
                continue  # none is configured
            if (told := stores[kind.name])["state"] != "healthy":
                warnings.warn(
                    f"The tables of {kind.name}, which is {told['state']}, are not listed: {told['detail']}",
                    stacklevel=2,
                )
        rows = [
            {"store": store, "table": table, **held}
            for store, told in stores.items()
            for table, held in told["tables"].items()
        ]
        text = ("asset", "content_hash")
        fields = [("store", pa.string()), ("table", pa.string()), ("rows", pa.int64())]
        return pa.Table.from_pylist(rows, pa.schema([*fields, *((name, pa.string()) for name in text)]))

    def sql(self, store: str, query: str) -> "pa.Table":
        """What a store answers to one query. It cannot change anything, whatever it says.

        Args:
            store: `postgres`, `duckdb`, `clickhouse` or `sqlite`.
            query: in the store's own SQL; its time-out is ML_ASSETS_QUERY_TIMEOUT_S.

        Raises:
            Refusal: there is no home or no such store, it answers no SQL, the query is wrong, or would change something.
            StoreUnavailable: the store does not answer.
        """
        from ml_assets.stores.registry import STORES

        asked = {kind.name: kind.asks for kind in STORES if kind.asks == kind.resources[0]}
        if store not in asked:
            known = next((kind for kind in STORES if kind.name == store), None)
            if known is None:
                raise Refusal(f"There is no store {store!r} to be asked: name one of {', '.join(asked)}.")
            instead = f"what lies there is a table of {known.asks} too: ask that, or " if known.asks else ""
            raise Refusal(f"{store} answers no SQL: {instead}export its tables to a file (export).")
        self.settings.require_home(store)
        return self._resources[str(asked[store])].answer(query)

    def export(self, table: str, path: Path | str, overwrite: bool = False) -> int:
        """Write a table to a file, a batch at a time: Parquet, CSV or a DuckDB file, as its ending says.

        Args:
            table: `store/table`, or the table's name alone if no other store has one of that name.
            path: ends in `.parquet`, `.csv` (JSON and vectors as text) or `.duckdb` (a table of the same name).
            overwrite: replace a file that is there, as a whole.

        Returns:
            how many rows.

        Raises:
            Refusal: there is no home or no such table, several of that name, nothing was written to it yet, or the path
                is another kind of file, in no folder or taken.
            StoreUnavailable: the store does not answer.
        """
        from ml_assets.tables.export import export
        from ml_assets.tables.validation import WHOLE

        store, contract = self._table(table)
        self._require_home(store)
        try:
            return export(
                lambda: store.read(contract, contract.names, WHOLE), contract.table, Path(path), overwrite
            )
        except LookupError as fault:
            if type(fault) is not LookupError:  # a bug of ours
                raise
            raise Refusal(str(fault)) from fault

    def lineage(self, column: str, downstream: bool = False) -> "pa.Table":
        """Which columns a column comes from, over all tables and stores, nearest first; no store is asked.

        Args:
            column: `store/table.column`; `table.column` or `column` where no other is called so.
            downstream: tell what breaks if it goes in place of that: what is made of it, the tables whose rows it decides
                about, and the tables that are made of those.

        Returns:
            a row a step: `asset` and `column` of what is made, `source_asset` and `source_column` of what it is made of,
            `how` ("value", or "rows" where the source filters, joins or orders; `column` is null then, and
            `source_column` where a whole table is the source), and `distance` from the column that was asked about.

        Raises:
            Refusal: there is no such column, or there are several; those that could be meant are named.
        """
        from ml_assets.operations.lineage import lineage_of_column

        return lineage_of_column(self.settings, column, downstream)

    def why(self, model: str, day: "date | str | None" = None) -> "Explanation":
        """Say why a model became worse: likely causes, and each fact with the rows that it rests on.

            print(stack.why("digits-mlp").markdown())
            [cause.sentence for cause in stack.why("digits-mlp", "2026-11-24").causes]

        It looks at the version and run that changed, their parameters, data and quality at training, the drift of inputs,
        other models of the dataset, similar runs from before, and makes the training set again from its pin. If
        ML_ASSETS_OLLAMA_CHAT_MODEL names a model, a summary in prose stands beside the facts.

        Args:
            day: UTC, one on which the model was worse; now if None.

        Returns:
            `.headline`, `.dataset`, `.day` (on which it began), `.causes` (name, verdict, points, sentence, supports,
            contradicts: numbers of claims), `.claims` (topic, sentence, rows: table, key, values), `.notes`, `.summary`,
            `.markdown()` and `.as_json()`.

        Raises:
            Refusal: the day is none, or the model was not worse then; says when it was.
            StoreUnavailable: a store does not answer, or no regression was ever looked for.
        """
        from ml_assets.operations.why import Stores, day_of, summarised, why

        self.settings.require_home("clickhouse", "postgres", "duckdb")
        resources = self._resources
        stores = Stores(
            resources["clickhouse"], resources["postgres"], resources["lake"], resources["embedder"].get
        )
        return summarised(self.settings, why(stores, model, day_of(day)))

    def _require_home(self, store: "TableStore") -> None:
        self.settings.require_home(store.name, *([store.books] if store.books else []))

    def _table(self, name: str) -> "tuple[TableStore, Contract]":
        """The table that is meant, of this project first; those of others are asked of the stores."""
        from ml_assets.contracts import tables
        from ml_assets.stores.registry import stores

        prefix, _, bare = name.rpartition("/")
        held = stores(self._resources)
        named = [store for store in held if prefix in ("", store.name, store.prefix, *store.also_holds)]
        if not named:
            raise Refusal(
                f"There is no store {prefix!r}: name one of {', '.join(store.name for store in held)}."
            )

        def found(
            contracts: "list[Contract]", store: "TableStore"
        ) -> "dict[str, tuple[TableStore, Contract]]":
            ours = [each for each in contracts if each.store in (store.prefix, *store.also_holds)]
            return {each.asset: (store, each) for each in ours if each.table == bare}

        known, meant = list(tables(self.settings).values()), {}
        for store in reversed(named):  # the first one wins, which is the truth behind a copy
            meant |= found(known, store)
        if not meant:
            for store in reversed(named):
                self._require_home(store)
                meant |= found(store.contracts(), store)
        if not meant:
            raise Refusal(f"There is no table {name!r}: Stack.tables() and 'ml-assets status' list them.")
        if len(meant) > 1:
            raise Refusal(f"There are several tables {name!r}: name one of {', '.join(sorted(meant))}.")
        return next(iter(meant.values()))
