"""Rows as entries of a collection, and entries as rows.

An entry's id is `<key>:<hash of its row>`. The vector is its embedding, a column of text that is called `text` is its
document, and all other columns are its metadata, which hold text, numbers and booleans only: times are text in ISO's
form, JSON stays text with the scalars of its first level beside it, so that searches can filter by them.

What belongs here: values. What does not: requests, and which entries count.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Column, Contract
from ml_assets.stores.vectors.look import same_vectors
from ml_assets.tables.arrow_types import ARROW_TYPES
from ml_assets.tables.staging import bucket_name, row_hashes

_EXACT = ".exact"
"""What the name of a float's text ends in: a store that reads numbers from JSON may miss the last bit."""

_DOCUMENT = "text"
"""The column that becomes the entry's document."""


def identified(batch: pa.RecordBatch, contract: Contract) -> tuple[list[str], list[str], list[str]]:
    """Key, id and name of the partition of each row."""
    keys = keys_of(batch, contract)
    hashes, buckets = row_hashes(batch, contract)
    names = [bucket_name(bucket, contract) for bucket in buckets]
    if contract.key_by_day:
        # A key that is unique within its day only may stand on another one as well.
        keys = [f"{name[:10]} {key}" for name, key in zip(names, keys, strict=True)]
    ids = [f"{key}:{digest:016x}" for key, digest in zip(keys, hashes, strict=True)]
    return keys, ids, names


def keys_of(batch: pa.RecordBatch, contract: Contract) -> list[str]:
    """Each row's key as text; several columns as JSON, so that no two keys look alike."""
    columns = [batch.column(name).to_pylist() for name in contract.key]
    if len(columns) == 1 and contract.by_name[contract.key[0]].type == "string":
        return columns[0]
    return [orjson.dumps(values, default=str).decode() for values in zip(*columns, strict=True)]


def vectors(batch: pa.RecordBatch, contract: Contract) -> np.ndarray:
    """The vectors of rows, one under the other."""
    vector = next(column for column in contract.columns if column.type == "vector")
    flat = batch.column(vector.name).flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(batch.num_rows, -1)


def encoded(batch: pa.RecordBatch, contract: Contract) -> dict[str, Any]:
    """Rows as arguments of `add` and `upsert`, but for ids and vectors."""
    columns = [(column, batch.column(column.name).to_pylist()) for column in _plain_columns(contract)]
    found: dict[str, Any] = {
        "metadatas": [
            _metadata([(column, values[n]) for column, values in columns]) for n in range(batch.num_rows)
        ]
    }
    if "documents" in map(part_of, contract.columns):
        found["documents"] = batch.column(_DOCUMENT).to_pylist()
    return found


def decoded(
    got: Any, order: list[int], bits: list[bytes], columns: Sequence[Column], unit: bool = False
) -> pa.RecordBatch:
    """Entries as rows.

    Args:
        got: as `Collection.get` gives them.
        order: places of the wanted ones.
        bits: the vectors as they were written.
        unit: whether vectors come at length 1.
    """
    arrays = []
    for column in columns:
        target = ARROW_TYPES[column.type]
        if column.type == "vector":
            arrays.append(_own_bits([got["embeddings"][n] for n in order], bits, unit))
        elif part_of(column) == "documents":
            arrays.append(pa.array([got["documents"][n] for n in order], target))
        else:
            entries = [got["metadatas"][n] or {} for n in order]
            cells = [entry.get(column.name) for entry in entries]
            if column.type == "float64":
                cells = [
                    _exact(cell, entry.get(f"{column.name}{_EXACT}"))
                    for cell, entry in zip(cells, entries, strict=True)
                ]
            text = column.type in ("timestamp", "date")
            arrays.append(pc.cast(pa.array(cells, pa.string()), target) if text else pa.array(cells, target))
    fields = [pa.field(column.name, ARROW_TYPES[column.type], column.nullable) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def part_of(column: Column) -> str:
    """The part of an entry that holds a column."""
    if column.type == "vector":
        return "embeddings"
    return "documents" if (column.name, column.type) == (_DOCUMENT, "string") else "metadatas"


def _plain_columns(contract: Contract) -> Iterable[Column]:
    """Columns kept as metadata: all but the vector and the document."""
    return (column for column in contract.columns if part_of(column) == "metadatas")


def _metadata(cells: Iterable[tuple[Column, Any]]) -> dict[str, Any] | None:
    """A flat dictionary: each column, and the scalars of JSON objects so that searches can filter by them.

    None stands for an empty one. That no column has the name of a part of another one is seen to
    by the contract.
    """
    found: dict[str, Any] = {}
    for column, value in cells:
        if value is None:
            continue
        found[column.name] = value.isoformat() if column.type in ("timestamp", "date") else value
        if column.type == "float64":
            found[f"{column.name}{_EXACT}"] = repr(value)
        elif column.type == "json":
            found |= {f"{column.name}.{name}": part for name, part in _scalars(value).items()}
    return found or None


def _scalars(document: str) -> dict[str, Any]:
    """What searches can filter by of a JSON object: text, numbers and booleans of its first level."""
    parts = orjson.loads(document)
    return {
        name: part
        for name, part in (parts.items() if isinstance(parts, dict) else ())
        if isinstance(part, bool | str | float) or (isinstance(part, int) and -(2**63) <= part < 2**63)
    }


def _exact(given: float | None, text: str | None) -> float | None:
    """The number as it was written; that of the metadata if somebody has changed it since."""
    if given is None or text is None:
        return given
    written = float(text)
    return written if math.isclose(given, written, rel_tol=1e-14) else given


def _own_bits(given: Sequence[Any], bits: Sequence[bytes], unit: bool) -> pa.Array:
    """The vectors as they were written, where the store's differ from them by rounding only."""
    own = np.stack([np.frombuffer(vector, dtype=np.float32) for vector in bits])
    same = same_vectors(given, bits, unit)
    if same.all():
        flat, lengths = own.reshape(-1), [own.shape[1]] * len(own)
    else:
        each = zip(own, given, same, strict=True)
        parts = [mine if is_same else np.asarray(other, dtype=np.float32) for mine, other, is_same in each]
        flat, lengths = np.concatenate(parts), [len(part) for part in parts]
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(flat))
