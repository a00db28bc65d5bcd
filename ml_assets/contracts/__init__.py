"""The contract of every table: columns, types, keys, partition column, ranges.

What belongs here: facts about tables that more than one room needs; nothing else in the project spells out a column
list. `tables(settings)` builds the contracts, and whoever needs one is handed them. What does not: SQL, connections,
and anything that imports dagster or a store.
"""

from dataclasses import replace

from ml_assets.contracts import embeddings, experiments, features, performance, raw, serving
from ml_assets.contracts.columns import INDEXED_BYTES, INDEXED_CHARACTERS
from ml_assets.contracts.model import Column, ColumnType, Contract, ForeignKey, WriteMode
from ml_assets.contracts.streams import (
    EVENT_KINDS,
    INHERITED,
    METRIC_COLUMNS,
    PERFORMANCE_COLUMNS,
    RUN_COLUMNS,
    RUN_STAGES,
    RUN_STATUSES,
    STREAMS,
    Stream,
    Version,
    may_become,
)
from ml_assets.settings import Settings

__all__ = [
    "EVENT_KINDS",
    "INDEXED",
    "INDEXED_BYTES",
    "INDEXED_CHARACTERS",
    "INHERITED",
    "METRIC_COLUMNS",
    "PERFORMANCE_COLUMNS",
    "RUN_COLUMNS",
    "RUN_STAGES",
    "RUN_STATUSES",
    "STREAMS",
    "Column",
    "ColumnType",
    "Contract",
    "ForeignKey",
    "Stream",
    "Tables",
    "Version",
    "WriteMode",
    "may_become",
    "tables",
]

Tables = dict[str, Contract]
"""Contracts by asset key."""

INDEXED = {
    "chroma/experiment_index": "postgres/experiment_embeddings",
    "chroma/document_index": "postgres/document_embeddings",
    "qdrant/experiment_index": "postgres/experiment_embeddings",
    "qdrant/document_index": "postgres/document_embeddings",
}
"""Indexes whose rows are those of a table with vectors: they must agree with it, and can be made of it again.

Those in Qdrant are tables only where one is configured."""


def tables(settings: Settings) -> Tables:
    """The contracts of all tables of the graph, by asset.

    Args:
        settings: for the dimension of the vectors, the folders of feature files, and how long events are kept.
    """
    features_of_files = features.tables(settings)
    events = next(
        (each for each in features_of_files if each.asset == "duckdb/model_performance_events"), None
    )
    rooms = (
        raw.tables(),
        experiments.tables(),
        features_of_files,
        # Without a pin the graph loads all the same: what a run adds to an event is added once it is pinned again.
        performance.tables(events.columns if events else PERFORMANCE_COLUMNS),
        embeddings.tables(settings.embedding_dimension),
        embeddings.in_qdrant(settings.embedding_dimension) if settings.qdrant_url else (),
        serving.tables(settings),
    )
    found = {contract.asset: contract for room in rooms for contract in room}
    events_kept = replace(found["clickhouse/ml_model_performance"], kept_days=settings.performance_ttl_days)
    return {**found, events_kept.asset: events_kept}
