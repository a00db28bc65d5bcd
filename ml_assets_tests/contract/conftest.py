"""One table, in every store: the contract that the suite writes, and how to write and read it.

`case` is parametrised over the six stores, and over ClickHouse in this process too for tests that are marked
`embedded`: it is the same engine and the same statements, but for opening and closing, which takes half of a test's
time. (PostgreSQL, Chroma and Redis are servers also when embedded; SQLite is none.) A test writes through Dagster, as
an asset would.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import InMemoryEventLogStorage

from ml_assets.cli.refresh import QUIET
from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.io_managers.chroma import ChromaIOManager
from ml_assets.io_managers.clickhouse import ClickHouseIOManager
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.io_managers.postgres import PostgresIOManager
from ml_assets.io_managers.redis import RedisIOManager
from ml_assets.io_managers.sqlite import SQLiteIOManager
from ml_assets.stores.postgres import PostgresStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.store import TableStore
from ml_assets_tests import servers

FIRST = date(2026, 1, 1)
DAILY = dg.DailyPartitionsDefinition(start_date=FIRST.isoformat(), end_date="2026-02-01", timezone="UTC")
HOURLY = dg.HourlyPartitionsDefinition("2026-01-01-00:00", "2026-01-03-00:00", timezone="UTC")

COLUMNS = (
    Column("id", "string", nullable=False),
    Column("happened_at", "timestamp", nullable=False),
    Column("text", "string", nullable=False),
    Column("vector", "vector", nullable=False, dimension=3),
    Column("amount", "float64"),
    Column("count", "int64", minimum=0),
    Column("flag", "bool"),
    Column("due", "date"),
    Column("document", "json"),
    Column("kind", "string", choices=("a", "b")),
)


@dataclass
class Case:
    """A store under test.

    Args:
        name: the store.
        manager: its IO manager.
        contract: daily table of `COLUMNS`.
        contracts: what the IO manager was given, by asset.
    """

    name: str
    manager: TableIOManager
    contract: Contract
    contracts: dict[str, Contract]
    instance: dg.DagsterInstance
    partitions: dg.TimeWindowPartitionsDefinition = DAILY

    def hourly(self) -> None:
        """Partition the table by the hour; what is a date elsewhere is a datetime then."""
        self.partitions = HOURLY

    @property
    def store(self) -> TableStore:
        """The store that keeps the truth: that of the online features is PostgreSQL, which Redis has a copy of."""
        if isinstance(self.manager, RedisIOManager):
            return PostgresStore(self.manager.postgres)
        return self.manager.table_store()

    def change(self, **changes: Any) -> None:
        """Give the table another contract."""
        self.contract = replace(self.contract, **changes)
        self.contracts[self.contract.asset] = self.contract

    @property
    def ready(self) -> dg.IOManagerDefinition:
        """The IO manager as it is: to configure it and its resources anew takes a sixth of a small run."""
        return dg.IOManagerDefinition.hardcoded_io_manager(self.manager)

    @property
    def key(self) -> dg.AssetKey:
        return dg.AssetKey(self.contract.asset.split("/"))

    def table(self, *rows: dict[str, Any]) -> pa.Table:
        """Rows as an Arrow table of the contract's schema."""
        return pa.Table.from_pylist(list(rows), arrow_schema(self.contract))

    def write(self, data: Any, first: date | None = FIRST, days: int = 1) -> dg.ExecuteInProcessResult:
        """Materialize the asset with this data for some partitions, or for the whole table."""
        daily = first is not None

        @dg.asset(
            key=self.key,
            io_manager_key="io",
            partitions_def=self.partitions if daily else None,
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def table() -> Any:
            return data() if callable(data) else data

        tags = {}
        if first is not None:
            step = timedelta(days=1) if self.partitions is DAILY else timedelta(hours=1)
            last = first + step * (days - 1)
            tags = {
                "dagster/asset_partition_range_start": first.strftime(self.partitions.fmt),
                "dagster/asset_partition_range_end": last.strftime(self.partitions.fmt),
            }
        return dg.materialize(
            [table], resources={"io": self.ready}, instance=self.instance, tags=tags, run_config=QUIET
        )

    def read(
        self,
        annotation: Any = pa.Table,
        columns: list[str] | None = None,
        day: date | None = None,
        until: date | None = None,
    ) -> Any:
        """Load the asset as a consumer with this annotation would: all of it, a partition, or a range of them."""
        found = []

        upstream = dg.AssetSpec(
            self.key, partitions_def=self.partitions if day else None
        ).with_io_manager_key("io")

        def consume(context: dg.AssetExecutionContext, rows: Any) -> None:
            found.append(rows.read_all() if isinstance(rows, pa.RecordBatchReader) else rows)

        consume.__annotations__["rows"] = annotation
        consumer = dg.asset(
            key="consumer",
            ins={"rows": dg.AssetIn(self.key, metadata={"columns": columns} if columns else {})},
            partitions_def=self.partitions if day else None,
            backfill_policy=dg.BackfillPolicy.single_run(),
        )(consume)
        edges = {"start": day, "end": until or day} if day else {}
        result = dg.materialize(
            [upstream, consumer],
            selection=[consumer],
            resources={"io": self.ready},
            instance=self.instance,
            run_config=QUIET,
            tags={
                f"dagster/asset_partition_range_{edge}": moment.strftime(self.partitions.fmt)
                for edge, moment in edges.items()
            },
        )
        assert result.success
        return found[0]

    def ids(self) -> list[str]:
        """Keys of the rows that a reader sees."""
        return sorted(self.read(columns=["id"])["id"].to_pylist())


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """Makes a good row."""
    return _row


def _row(identity: str, day: int = 0, **values: Any) -> dict[str, Any]:
    """A good row on the n-th day."""
    moment = datetime(2026, 1, 1, 9, 30, 0, 123456, tzinfo=UTC) + timedelta(days=day)
    return {
        "id": identity,
        "happened_at": moment,
        "text": f"text of {identity}",
        "vector": [0.5, -0.25, 1.0],
        "amount": 1.5,
        "count": 3,
        "flag": True,
        "due": date(2026, 3, 1),
        "document": '{"a":1}',
        "kind": "a",
        **values,
    }


SERVERS = servers.in_use()
STORES = ("duckdb", "postgres", "clickhouse-server", "chroma", "sqlite", "serving")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case` is every store, unless a test says which."""
    markers = metafunc.definition.iter_markers("parametrize")
    if "case" in metafunc.fixturenames and not any("case" in marker.args[0] for marker in markers):
        embedded = metafunc.definition.get_closest_marker("embedded") and not SERVERS
        metafunc.parametrize("case", (*STORES, "clickhouse") if embedded else STORES, indirect=True)


class _AssetEvents(InMemoryEventLogStorage):
    """Keeps what runs tell of assets, and nothing else of what they tell, which takes most of a small run's time."""

    def store_event(self, event: EventLogEntry) -> None:
        if event.dagster_event and event.dagster_event.event_type_value.startswith("ASSET_"):
            super().store_event(event)


@pytest.fixture(scope="session")
def _instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance._event_storage = _AssetEvents()
        instance._event_storage.register_instance(instance)
        yield instance


@pytest.fixture
def instance(_instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance without history; making one takes as long as several writes."""
    yield _instance
    _instance.wipe()


@pytest.fixture
def case(request: pytest.FixtureRequest, instance: dg.DagsterInstance) -> Case:
    store, _, place = request.param.partition("-")
    contract = Contract(
        f"{store}/events",
        "an event",
        COLUMNS,
        key=("id",),
        partition_column="happened_at",
        unique_across_days=store == "serving",  # which refuses anything else
    )
    return _case(store, place, request, contract, instance)


def _case(
    store: str,
    place: str,
    request: pytest.FixtureRequest,
    contract: Contract,
    instance: dg.DagsterInstance,
) -> Case:
    get, contracts = request.getfixturevalue, {contract.asset: contract}
    match store:
        case "duckdb":
            manager = DuckLakeIOManager(lake=get("shared_lake"), contracts=contracts)
        case "postgres":
            manager = PostgresIOManager(postgres=get("postgres"), contracts=contracts)
        case "clickhouse":
            manager = ClickHouseIOManager(
                clickhouse=get("shared_clickhouse_server" if place else "clickhouse"), contracts=contracts
            )
        case "chroma":
            manager = ChromaIOManager(chroma=get("chroma"), postgres=get("postgres"), contracts=contracts)
        case "sqlite":
            manager = SQLiteIOManager(sqlite=get("sqlite"), contracts=contracts)
        case _:
            manager = RedisIOManager(redis=get("redis"), postgres=get("postgres"), contracts=contracts)
    return Case(store, manager, contract, contracts, instance)
