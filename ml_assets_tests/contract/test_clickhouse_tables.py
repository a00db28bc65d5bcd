"""ClickHouse's tables: which are ours, columns that a table has not got yet, and rows that two clients insert."""

import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.io_managers.clickhouse import ClickHouseIOManager
from ml_assets.lib import sharing
from ml_assets.lib.faults import StatementTimeout
from ml_assets.lib.sql import quote_identifier
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.stores.clickhouse.ledger import CONTRACTS, LEDGER
from ml_assets.stores.clickhouse.lock import WriteBusy, lock_name, writing
from ml_assets.stores.clickhouse.maintenance import maintain
from ml_assets.stores.clickhouse.recovery import finish_writes
from ml_assets.stores.clickhouse.redo import failed_name, ready_name, recover, stage_name
from ml_assets.stores.clickhouse.stream import arrow_stream
from ml_assets.stores.clickhouse.write import write
from ml_assets.tables.staging import stage

FIRST, SECOND = date(2026, 1, 1), date(2026, 1, 2)
HEX = "0123456789abcdef"

on_a_server = pytest.mark.parametrize("case", ["clickhouse-server"], indirect=True)
both = pytest.mark.parametrize("case", ["clickhouse", "clickhouse-server"], indirect=True)


def tables(client) -> set[str]:
    found = client.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
    return {name for (name,) in found} - {LEDGER, CONTRACTS}


OURS = [
    LEDGER,
    CONTRACTS,
    lock_name("door"),
    f"{lock_name('door')}__{HEX * 2}",
    stage_name("door", HEX),
    ready_name("door", HEX),
    f"{ready_name('door', HEX)}__{HEX}",
    failed_name("two\nlines", HEX),
]


@pytest.mark.parametrize("name", OURS)
def test_a_table_cannot_have_the_name_of_one_of_the_writers_own(name):
    with pytest.raises(ValueError, match=r"a table of ClickHouse cannot have the name .*; rename it"):
        Contract(f"clickhouse/{name}", "", (Column("id", "string"),), key=())


@pytest.mark.parametrize("name", ["lock", "door__locks", "raw__stage__orders", "door__lock__open", "ledger"])
def test_other_names_with_such_words_are_as_good_as_any(clickhouse, name):
    contract = Contract(f"clickhouse/{name}", "", (Column("id", "string"),), key=())
    for value in ("old", "new"):
        rows = stage(pa.table({"id": [value]}), contract, ClickHouseIOManager.limits)
        with writing(clickhouse, name) as client, closing(rows):
            assert write(clickhouse, client, contract, rows)
        assert finish_writes(clickhouse) == []
        with clickhouse.client() as client:
            assert client.query(f"SELECT id FROM {quote_identifier(name)}").result_rows == [(value,)]


@pytest.fixture(params=["clickhouse", "shared_clickhouse_server"])
def store(request: pytest.FixtureRequest) -> ClickHouseResource:
    return request.getfixturevalue(request.param)


SOMEBODYS = {
    "door__lock": "ENGINE = MergeTree ORDER BY id",
    "gate__lock": "ENGINE = Memory COMMENT 'my own'",
    f"gate__lock__{HEX * 2}": "ENGINE = MergeTree ORDER BY id",
    f"gate__stage__{HEX}": "ENGINE = Memory",
    f"gate__ready__{HEX}__lock": "ENGINE = MergeTree ORDER BY id",
}


def test_a_table_of_somebody_else_is_no_lock_and_no_staging_table(store, monkeypatch):
    """Whatever it is called: it is neither dropped nor renamed, and a writer does not wait for it."""
    monkeypatch.setattr("ml_assets.stores.clickhouse.redo._ABANDONED_S", -1)
    monkeypatch.setattr("ml_assets.stores.clickhouse.lock.STALE_S", -1)
    with store.client(write=True) as client:
        for name, engine in SOMEBODYS.items():
            client.command(f"CREATE TABLE {quote_identifier(name)} (id String) {engine}")
        assert finish_writes(store) == []
        assert recover(client, alone=True) == []
        for table, engine in (("door", "MergeTree"), ("gate", "Memory")):
            told = rf"{table} cannot be written: .* {table}__lock, and that is another table \({engine}\): rename"
            with pytest.raises(WriteBusy, match=told), writing(store, table):
                pass
        assert tables(client) == set(SOMEBODYS)


@on_a_server
def test_a_vector_that_is_older_than_its_column_is_null(case, row):
    """As in every other store, though an array cannot be Nullable: what is stored is an empty one."""
    case.write(case.table(row("old"), row("too")))
    case.change(columns=(*case.contract.columns, Column("extra", "vector", dimension=2)))
    case.write(case.table(row("new", day=1, extra=[1.0, 2.0])), first=SECOND)
    found = case.read(columns=["extra", "id"]).sort_by("id").to_pylist()
    assert [each["extra"] for each in found] == [[1.0, 2.0], None, None]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


ADDED = (
    Column("note", "string"),
    Column("kind_too", "string", choices=("a", "b")),
    Column("seen_at", "timestamp"),
    Column("extra", "vector", dimension=2),
    Column("more", "json"),
)


@on_a_server
def test_columns_that_the_table_has_not_got_yet_are_null(case, row):
    """The contract has gained them, and nothing has been written since."""
    case.write(case.table(row("one")))
    case.change(columns=(*case.contract.columns, *ADDED))
    names = [column.name for column in ADDED]
    assert case.read(columns=names, day=date(2026, 1, 1)).to_pylist() == [dict.fromkeys(names)]
    assert case.read().select(["id", *names]).to_pylist() == [{"id": "one", **dict.fromkeys(names)}]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
    case.write(case.table(row("two", day=1, **dict.fromkeys(names) | {"extra": [1.0, 2.0]})), first=SECOND)
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@on_a_server
def test_a_column_that_may_not_be_null_and_is_not_there_is_told_of(case, row):
    case.write(case.table(row("one")))
    case.change(columns=(*case.contract.columns, Column("added", "string", nullable=False)))
    told = r"clickhouse/events: .* new column 'added' that may not be null, .*; run ALTER TABLE \"events\" ADD COLUMN"
    with pytest.raises(ContractViolation, match=told):
        case.read()
    with pytest.raises(ContractViolation, match=told):
        case.store.live_state(case.contract)
    assert case.ids() == ["one"]


@on_a_server
def test_a_partition_cannot_be_read_by_a_column_that_is_not_there(case, row):
    case.write(case.table(row("one")))
    moment = Column("noted_at", "timestamp")
    case.change(columns=(*case.contract.columns, moment), partition_column="noted_at")
    with pytest.raises(ContractViolation, match="new column 'noted_at' that may not be null"):
        case.read(columns=["id"], day=date(2026, 1, 1))


@on_a_server
def test_a_refused_change_has_not_begun(case, row):
    """The new column, which may be null, stands before and after the one that is refused."""
    case.write(case.table(row("one")))
    columns = case.contract.columns
    changed = tuple(replace(c, type="string") if c.name == "amount" else c for c in columns)
    case.change(columns=(Column("before", "string"), *changed, Column("after", "string")))
    with pytest.raises(ContractViolation, match=r"'amount' is Nullable\(Float64\).*Nothing was written"):
        case.write(case.table(row("two", amount="3")))
    case.change(columns=columns)
    case.write(case.table(row("two")))
    assert case.ids() == ["two"]


@pytest.fixture
def inserters(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes 300 rows many; how many clients each write was shared out to."""
    monkeypatch.setattr("ml_assets.tables.arrow_types.BATCH_ROWS", 20)
    shared, original = [], sharing.share_out

    def share_out(items, work, threads):
        shared.append(threads)
        original(items, work, threads)

    monkeypatch.setattr(sharing, "share_out", share_out)
    return shared


def many(case, row, amount: float):
    return case.table(*(row(f"{n:03}", day=n % 3, amount=amount + n) for n in range(300)))


@both
def test_many_rows_are_inserted_by_two_clients(case, row, inserters):
    for amount in (0.5, 0.25):
        given = many(case, row, amount)
        case.write(given, days=3)
        assert case.read().sort_by("id").equals(given)
        assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
        for day in range(3):
            days = case.read(columns=["happened_at"], day=date(2026, 1, 1 + day))["happened_at"].to_pylist()
            assert Counter(moment.day for moment in days) == {1 + day: 100}
    assert inserters == [2, 2]
    # Only what has changed is written, so that these are few.
    case.write(pa.concat_tables([given.slice(1), case.table(row("000", amount=7.0))]), days=3)
    assert inserters == [2, 2, 2]
    case.write(case.table(row("few")))
    assert inserters == [2, 2, 2]


@both
def test_one_of_two_clients_fails_and_the_old_rows_stay(case, row, inserters):
    """The engine refuses one row in the midst."""
    given = many(case, row, 0.5)
    case.write(given, days=3)
    with case.manager.clickhouse.client(write=True) as client:
        client.command("ALTER TABLE events ADD CONSTRAINT fewer CHECK amount <> 150.25")
        with pytest.raises(DatabaseError, match="fewer"):
            case.write(many(case, row, 0.25), days=3)
        assert tables(client) == {"events"}
        assert case.read().sort_by("id").equals(given)
        client.command("ALTER TABLE events DROP CONSTRAINT fewer")
    case.write(many(case, row, 0.25), days=3)
    assert case.read().sort_by("id").equals(many(case, row, 0.25))
    assert inserters == [2, 2, 2]


@both
def test_rows_that_cannot_be_read_again_leave_the_old_ones(case, row, inserters, monkeypatch):
    """Both clients take their rows from one file, whose disk fails."""
    given = many(case, row, 0.5)
    case.write(given, days=3)
    original = ClickHouseStore.write

    def failing(store, contract, staged):
        batches = staged.batches

        def some(buckets=None):
            for nth, batch in enumerate(batches(buckets)):
                if nth == 5:
                    raise OSError(5, "Input/output error")
                yield batch

        monkeypatch.setattr(staged, "batches", some)
        return original(store, contract, staged)

    with monkeypatch.context() as patched:
        patched.setattr(ClickHouseStore, "write", failing)
        with pytest.raises(OSError, match="Input/output error"):
            case.write(many(case, row, 0.25), days=3)
    assert inserters == [2, 2]
    with case.manager.clickhouse.client() as client:
        assert tables(client) == {"events"}
    assert case.read().sort_by("id").equals(given)


READER = """
import sys
from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.clickhouse import ClickHouseIOManager
from ml_assets.tables.validation import WHOLE
from ml_assets.resources.clickhouse import ClickHouseResource

def peak_mb():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) // 1024

clickhouse = ClickHouseResource(home=sys.argv[1])
contract = Contract("clickhouse/many", "", (Column("id", "int64", nullable=False), Column("text", "string")), key=("id",))
with clickhouse.client():
    manager = ClickHouseIOManager(clickhouse=clickhouse)
    peaks, rows = [peak_mb()], 0
    for batch in manager.table_store().read(contract, contract.names, WHOLE):
        rows += batch.num_rows
    print(rows, peak_mb() - peaks[0])
"""


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_the_embedded_engine_gives_rows_as_a_stream(clickhouse):
    """Peak memory of a process of its own: what it reads must not be in it at once (that takes 330 MB)."""
    with clickhouse.client(write=True) as client:
        client.command("CREATE TABLE many (id Int64, text Nullable(String)) ENGINE = MergeTree ORDER BY id")
        client.command("INSERT INTO many SELECT number, toString(cityHash64(number)) FROM numbers(3000000)")
    done = subprocess.run(
        [sys.executable, "-c", READER, clickhouse.home], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows, grown_mb = map(int, done.stdout.split())
    assert rows == 3_000_000
    assert grown_mb < 100


@pytest.mark.embedded_only("asks the embedded engine; a server has a time-out of its own")
def test_a_read_that_takes_the_embedded_engine_too_long_ends(clickhouse):
    with clickhouse.client(write=True) as client:
        client.command("CREATE TABLE slow (id Int64) ENGINE = MergeTree ORDER BY id")
        client.command("INSERT INTO slow SELECT number FROM numbers(1000000)")
    with clickhouse.client() as client:
        client.set_client_setting("max_execution_time", "0.001")  # of a client that is connected already
        stream = arrow_stream(client, "SELECT id FROM slow")
        with stream as batches, pytest.raises(StatementTimeout, match=r"for more than 0\.001 s"):
            list(batches)
    with clickhouse.client() as client:
        stream = arrow_stream(client, "SELECT id FROM none_such")
        with stream as batches, pytest.raises(DatabaseError) as fault:
            next(batches)
    assert fault.value.code == 60


@both
def test_a_table_of_other_codecs_goes_on_and_gets_ours_for_what_is_written_next(case, row):
    """Its rows keep their hash, and a column that somebody has given a codec of their own keeps that."""
    case.write(case.table(row("a"), row("b")))
    clickhouse, table = case.store._clickhouse, quote_identifier(case.contract.table)
    before = case.store.live_state(case.contract)
    ours = codecs(clickhouse, case.contract.table)
    assert set(ours.values()) >= {"CODEC(Delta(8), ZSTD(1))", "CODEC(T64, ZSTD(1))"}
    own, *others = ours
    with clickhouse.client(write=True) as client:
        removed = [f"MODIFY COLUMN {quote_identifier(name)} REMOVE CODEC" for name in others]
        changed = [*removed, f"MODIFY COLUMN {quote_identifier(own)} CODEC(LZ4)"]
        client.command(f"ALTER TABLE {table} {', '.join(changed)}, RESET SETTING default_compression_codec")
    assert codecs(clickhouse, case.contract.table) == {own: "CODEC(LZ4)"}
    case.write(case.table(row("a"), row("b")))
    assert case.store.live_state(case.contract) == before
    case.write(case.table(row("a"), row("c")))
    assert codecs(clickhouse, case.contract.table) == {**ours, own: "CODEC(LZ4)"}
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract) != before


def codecs(clickhouse: ClickHouseResource, table: str) -> dict[str, str]:
    """Codec of each column that has one."""
    with clickhouse.client() as client:
        found = client.query(
            "SELECT name, compression_codec FROM system.columns WHERE database = currentDatabase() "
            "AND table = {table:String} AND compression_codec <> ''",
            parameters={"table": table},
        ).result_rows
    return {str(name): str(codec) for name, codec in found}


@pytest.mark.parametrize("case", ["clickhouse"], indirect=True)
def test_what_has_expired_is_dropped_and_the_books_are_right(case, row):
    """A day that is a day too old goes, is not told as damaged, may be written again, and stays where it is kept."""
    kept = (datetime.now(UTC).date() - FIRST).days - 1
    case.write(case.table(row("a"), row("b", day=1)), days=2)
    limits, clickhouse = ClickHouseIOManager.limits, case.store._clickhouse
    before = case.store.live_state(case.contract)
    assert list(maintain(clickhouse, {case.contract.asset: kept + 1, "clickhouse/nobody": 1}, limits)) == []
    assert case.store.live_state(case.contract) == before
    (told, *_) = maintain(clickhouse, {case.contract.asset: kept}, limits)
    assert told == f"Dropped 1 partition of {case.contract.table} with 1 row: older than {kept} days."
    assert case.ids() == ["b"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract) != before
    assert not [each for each in maintain(clickhouse, {case.contract.asset: kept}, limits) if "older" in each]
    case.write(case.table(row("a")))
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract) == before
