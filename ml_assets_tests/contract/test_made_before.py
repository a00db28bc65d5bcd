"""Passages that the lake holds and that are not cut again."""

from datetime import UTC, datetime

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.contracts import tables as contracts
from ml_assets.lib.passages import SCHEMA
from ml_assets.operations.made_before import known_passages
from ml_assets.settings import Settings
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.tables.staging import stage

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CHUNKS = contracts(Settings())["duckdb/document_chunks"]


def written(lake, contract: Contract = CHUNKS) -> pa.Table:
    rows = [
        dict.fromkeys(SCHEMA.names)
        | {"chunk_id": f"{id}#{n}", "document_id": id, "chunk_index": n, "text": "text", "token_count": 1}
        | {"metadata": "{}", "content_hash": "c", "document_hash": f"of {id}", "updated_at": NOW}
        for id in "abc"
        for n in range(2)
    ]
    table = pa.Table.from_pylist(rows, SCHEMA).select(contract.names)
    with stage(table, contract, DuckLakeStore.limits) as staged:
        DuckLakeStore(lake).write(contract, staged)
    return table


def test_passages_are_found_by_their_documents(lake):
    assert known_passages(lake, CHUNKS) is None, "there are none yet"
    table = written(lake)
    before = known_passages(lake, CHUNKS)
    assert before is not None
    found = pa.Table.from_batches(before(["of a", "of c", "of none"]), SCHEMA)
    assert found.sort_by("chunk_id").equals(table.take([0, 1, 4, 5]))
    assert list(before(["of none"])) == []


def test_passages_of_a_former_release_or_changed_by_hand_are_cut_anew(lake):
    former = Contract(CHUNKS.asset, CHUNKS.description, CHUNKS.columns[:-1], CHUNKS.key)
    assert CHUNKS.columns[-1].name == "document_hash"
    written(lake, former)
    assert known_passages(lake, CHUNKS) is None
    written(lake)
    assert known_passages(lake, CHUNKS) is not None
    with lake.get_connection(write=True) as connection:
        connection.execute("DELETE FROM lake.features.document_chunks WHERE chunk_id = 'b#1'")
    assert known_passages(lake, CHUNKS) is None
