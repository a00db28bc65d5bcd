"""Adding a store is one package and one line: a small store in memory is seen by everything that loops over stores."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.maintenance import maintain
from ml_assets.maintenance.recovery import recover_all
from ml_assets.maintenance.status import Difference, stores_status
from ml_assets.settings import Settings
from ml_assets.stores import registry
from ml_assets.tables.arrow_types import arrow_schema, never_written
from ml_assets.tables.staging import Buckets, Staged, TableState, measure, stage, table_state
from ml_assets.tables.store import Recovery, Retention, StoreHealth, TableStore, Written
from ml_assets.tables.validation import WHOLE, Limits, Window

CONTRACT = Contract("memory/notes", "a note", (Column("id", "int64"), Column("text", "string")), key=("id",))


class Shelf:
    """Stands for the resource of a store: what is on it stays as long as the process."""

    def __init__(self) -> None:
        self.tables: dict[str, tuple[Contract, pa.Table, Buckets]] = {}

    def health(self) -> StoreHealth:
        return StoreHealth("healthy", "1.0")

    def location(self) -> str:
        return "memory:"


class MemoryStore(TableStore):
    name: ClassVar[str] = "memory"
    prefix: ClassVar[str] = "memory"
    kind: ClassVar[str] = "memory"
    resources: ClassVar[tuple[str, ...]] = ("shelf",)
    limits: ClassVar[Limits] = Limits("memory")

    def __init__(self, shelf: Shelf) -> None:
        self._tables, self._shelf = shelf.tables, shelf

    def write(self, contract: Contract, staged: Staged) -> Written:
        rows = pa.Table.from_batches(staged.batches(), arrow_schema(contract))
        changed = self._tables.get(contract.asset, (None, None, None))[2] != staged.buckets
        self._tables[contract.asset] = contract, rows, staged.buckets
        return Written(changed, staged.buckets)

    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> pa.RecordBatchReader:
        if contract.asset not in self._tables:
            raise never_written(contract.asset)
        return self._tables[contract.asset][1].select(list(columns)).to_reader()

    def contracts(self) -> list[Contract]:
        return [contract for contract, _, _ in self._tables.values()]

    def last_contract(self, asset: str) -> Contract | None:
        return self._tables[asset][0] if asset in self._tables else None

    def ledger_state(self, contract: Contract, any_version: bool = False) -> TableState:
        return table_state(self._tables[contract.asset][2])

    def live_state(self, contract: Contract) -> TableState:
        return table_state(measure(self._tables[contract.asset][1].to_batches(), contract))

    def recover(self, tables: Mapping[str, Contract]) -> Recovery:
        return Recovery(self.name, "clean", "Nothing survives its process.")

    def health(self) -> StoreHealth:
        return self._shelf.health()

    def size(self) -> int:
        return sum(rows.nbytes for _, rows, _ in self._tables.values())

    def maintain(self, retention: Retention) -> Iterator[str]:
        yield "Dusted the shelf."


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A shelf, and the one line that makes its store known."""
    monkeypatch.setattr(registry, "STORES", [MemoryStore])
    return Shelf()


def write(shelf: Shelf, *texts: str) -> Written:
    rows = pa.table({"id": range(len(texts)), "text": texts}, arrow_schema(CONTRACT))
    with stage(rows, CONTRACT, MemoryStore.limits, WHOLE) as staged:
        return MemoryStore(shelf).write(CONTRACT, staged)


def test_a_registered_store_is_in_status_recovery_and_maintenance(shelf, monkeypatch, tmp_path):
    resources: dict[str, Any] = {"shelf": shelf, "lake": type("Lake", (), {"home": str(tmp_path)})}
    resources |= {"mlflow": type("Tracking", (), {"health": shelf.health, "location": shelf.location})}
    monkeypatch.setattr("ml_assets.maintenance.status.store_resources", lambda settings: resources)
    assert write(shelf, "one", "two").changed
    assert not write(shelf, "one", "two").changed
    status, differences = stores_status(Settings(home=tmp_path), verify=True)
    assert status["memory"]["state"] == "healthy"
    assert status["memory"]["tables"]["notes"]["rows"] == 2
    assert differences == []
    contract, rows, noted = shelf.tables["memory/notes"]
    shelf.tables["memory/notes"] = contract, rows.slice(1), noted
    _, (difference,) = stores_status(Settings(home=tmp_path), verify=True)
    assert isinstance(difference, Difference)
    assert (difference.store, difference.table) == ("memory", "notes")
    assert recover_all(resources, {}) == [Recovery("memory", "clean", "Nothing survives its process.")]
    dusted, _ = maintain(resources, Retention(timedelta(days=1)))
    assert (dusted.store, dusted.done, dusted.fault) == ("memory", ("Dusted the shelf.",), "")


def test_its_assets_have_checks_and_kinds(shelf):
    from ml_assets.defs.checks import table_checks
    from ml_assets.defs.options import options

    given = options(Settings(), CONTRACT, group="notes", description="Notes.")
    assert given["kinds"] == {"memory"}
    assert given["io_manager_key"] == "memory_io"
    assert given["metadata"]["dagster/storage_kind"] == "memory"
    names = {key.name for key in table_checks({CONTRACT.asset: CONTRACT}, CONTRACT.asset).check_keys}
    assert names == {"contract", "unique_key"}
