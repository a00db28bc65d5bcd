"""Indexes of vectors in PostgreSQL: one a model, also of vectors that are too long for an index of their own type."""

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.operations.search_texts import Subject
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.postgres_table.vector_indexes import distance_sql, drop_indexes, make_vector_indexes
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage

SUBJECT = Subject("passages", "", "id", "id", "id")


def contract_of(dimension: int, vectors_by: str = "model_name") -> Contract:
    columns = (
        Column("id", "string", nullable=False),
        Column("model_name", "string", nullable=False),
        Column("embedding", "vector", nullable=False, dimension=dimension),
    )
    return Contract(
        "postgres/passages", "", columns, key=("id",), mode="upsert_delete", vectors_by=vectors_by
    )


def write(postgres, contract: Contract, vectors: np.ndarray, models: list[str]) -> None:
    columns = {
        "id": [f"p{n}" for n in range(len(vectors))],
        "model_name": models,
        "embedding": vectors.tolist(),
    }
    rows = pa.table(columns, arrow_schema(contract))
    with stage(rows, contract, PostgresStore.limits) as staged:
        PostgresStore(postgres).write(contract, staged)


def indexes(postgres) -> list[str]:
    with postgres.connect() as connection:
        found = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'passages' AND indexdef LIKE '%hnsw%'"
        ).fetchall()
    return sorted(definition.partition(" USING ")[2] for (definition,) in found)


@pytest.mark.parametrize(
    ("dimension", "indexed"),
    [
        (8, "hnsw (embedding vector_cosine_ops)"),
        (2_560, "hnsw (((embedding)::halfvec(2560)) halfvec_cosine_ops)"),
    ],
)
def test_every_model_has_an_index_that_its_searches_use(postgres, dimension, indexed, monkeypatch):
    # Tables of ours may no longer mix models; one of before, or that somebody else writes, does.
    monkeypatch.setattr("ml_assets.tables.staging.of_one_model", lambda batches, _: batches)
    contract, rng = contract_of(dimension), np.random.default_rng(19)
    vectors = rng.normal(size=(120, dimension)).astype(np.float32)
    write(postgres, contract, vectors, ["it's a model"] * 100 + ["another"] * 20)
    assert indexes(postgres) == sorted(
        f"{indexed} WHERE (model_name = '{name}'::text)" for name in ("another", "it''s a model")
    )
    own = f"[{','.join(map(repr, vectors[7].tolist()))}]"
    given = {"vector": own, "embedder": "it's a model", "most": 5}
    statement = SUBJECT.sql("nearest", "", distance_sql("entry.embedding", "%(vector)s", dimension))
    with postgres.connect() as connection:
        connection.execute("SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL enable_seqscan = off")
        plan = connection.execute(b"EXPLAIN " + statement, given, prepare=False).fetchall()
        found = connection.execute(statement, given, prepare=False).fetchall()
    assert any("Index Scan using passages_hnsw_" in line for (line,) in plan), plan
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(-(units[:100] @ units[7]))[:5]
    assert [(key, owner) for key, owner, _ in found] == [(f"p{n}", f"p{n}") for n in nearest]
    assert [score for _, _, score in found] == pytest.approx((units @ units[7])[nearest].tolist(), abs=1e-6)
    # A model that is gone takes its index with it.
    write(postgres, contract, vectors[:100], ["it's a model"] * 100)
    assert indexes(postgres) == [f"{indexed} WHERE (model_name = 'it''s a model'::text)"]


def test_the_index_that_all_models_shared_gives_way(postgres):
    """Of a table that was made before each had its own."""
    vectors = np.eye(8, dtype=np.float32)
    write(postgres, contract_of(8, vectors_by=""), vectors[:7], ["m"] * 7)
    assert indexes(postgres) == ["hnsw (embedding vector_cosine_ops)"]
    with postgres.connect(write=True) as connection:
        connection.execute("CREATE INDEX mine ON passages USING hnsw (embedding vector_l2_ops)")
    write(postgres, contract_of(8), vectors, ["m"] * 8)
    assert indexes(postgres) == [
        "hnsw (embedding vector_cosine_ops) WHERE (model_name = 'm'::text)",
        "hnsw (embedding vector_l2_ops)",
    ]


def test_indexes_are_made_before_any_is_dropped(postgres):
    """A switch makes those of several tables, none of which can be read once one of its indexes goes."""
    vectors = np.eye(8, dtype=np.float32)
    write(postgres, contract_of(8, vectors_by=""), vectors, ["m"] * 8)
    with postgres.connect(write=True) as connection:
        former = make_vector_indexes(connection, contract_of(8))
    assert former == ["passages_embedding_idx"]
    assert len(indexes(postgres)) == 2
    with postgres.connect(write=True) as connection:
        drop_indexes(connection, contract_of(8), former)
    assert indexes(postgres) == ["hnsw (embedding vector_cosine_ops) WHERE (model_name = 'm'::text)"]
