"""What follows a switch is made of what there is then, though the graph goes on beside it."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from ml_assets.contracts import tables
from ml_assets.operations import search_switch
from ml_assets.operations.search_candidates import RAW, Built
from ml_assets.settings import Settings
from ml_assets.stores import duckdb, registry
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.validation import Limits

CHUNKS, VECTORS, INDEX = "duckdb/document_chunks", "postgres/document_embeddings", "chroma/document_index"


@dataclass
class Graph:
    """Stores beside which the graph writes what came last, just before the switch does."""

    newest: str
    to_come: list[str]
    prefix: str
    written: list[Any] = field(default_factory=list)
    limits: Limits = field(default_factory=lambda: Limits("a store"))

    def comes(self) -> None:
        if self.to_come:
            self.newest = self.to_come.pop(0)
            self.written.append(self.newest)

    def write(self, _: Any, rows: Any) -> None:
        self.comes()
        if not isinstance(rows, str):
            rows = "".join(id for batch in rows.batches() for id in batch["id"].to_pylist())
        self.written.append(rows)

    def ledger_state(self, _: Any) -> str:
        return self.newest

    def read(self, contract: Any, columns: Any, _: Any) -> pa.RecordBatchReader:
        schema = arrow_schema(contract, columns)
        row = dict.fromkeys(columns) | {"id": self.newest, "text": "", "embedding": [0.0] * 384}
        return pa.Table.from_pylist([row], schema).to_reader()


def move(settings: Settings, graph: Graph) -> Any:
    @contextmanager
    def cut() -> Any:
        yield graph.newest

    builder = SimpleNamespace(documents=lambda: graph.newest, cut=cut)
    resources = {"lake": None, "postgres": None}
    return SimpleNamespace(builder=builder, new=SimpleNamespace(settings=settings), resources=resources)


@pytest.mark.parametrize(
    ("newest", "to_come", "written"),
    [
        # As it was built; the documents are others since then; others come at the last moment.
        ("built", [], ["built"]),
        ("newer", [], ["newer"]),
        ("built", ["newer"], ["newer", "built", "newer"]),
    ],
)
def test_passages_of_newer_documents_are_not_replaced_by_older_ones(
    monkeypatch, settings, newest, to_come, written
):
    graph = Graph(newest, to_come, "duckdb")
    monkeypatch.setattr(duckdb, "DuckLakeStore", lambda *_: graph)
    built = Built(chunks="built", versions={RAW: "built"})  # type: ignore[arg-type]
    contract = tables(settings)[CHUNKS]
    search_switch._follow_with_passages(move(settings, graph), contract, built)
    assert graph.written == written


def test_newer_vectors_are_not_replaced_by_older_ones_in_an_index(monkeypatch, settings):
    graph = Graph("old", ["newer"], "chroma")
    source = Graph("old", [], "postgres")
    graph.comes, comes = lambda: (comes(), setattr(source, "newest", graph.newest)), graph.comes  # type: ignore[method-assign]
    monkeypatch.setattr(registry, "stores", lambda _: [graph, source])
    contracts = tables(settings)
    search_switch._follow_with_index(move(settings, graph), contracts[INDEX], contracts[VECTORS])
    assert graph.written == ["newer", "old", "newer"]


def test_an_index_whose_store_is_not_configured_just_now_stays_noted(tmp_path) -> None:
    """There is no PostgreSQL here in which it could be noted that it follows."""
    settings = Settings(home=tmp_path)
    assert "qdrant/document_index" not in tables(settings)
    assert search_switch._follow(move(settings, Graph("new", [], "qdrant")), ["qdrant/document_index"]) == []
