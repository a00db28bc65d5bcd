"""Collections in Chroma: immutable entries, and a manifest in PostgreSQL that names the live ones.

Chroma has no transactions. An entry's id is `<key>:<hash of its row>`, so a changed row is a new entry and
the old one stays readable beside it. The manifest (table `ledger.chroma_manifest`) says which id is live for
each key; it changes in one PostgreSQL transaction, and that is the commit. Readers go by the manifest.
Entries that it does not name are swept away after the commit, or by the next write after a crash.

For cosine distance Chroma keeps a vector at length 1 and gives it back multiplied, which bends its last bit.
So the manifest also keeps each vector's own bits; a reader gets those, unless Chroma's vector is another one.

What belongs here: encoding of rows as entries, the manifest, sweeping. What does not: how a server is
reached, and how anybody searches.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.lib.validation import WHOLE, Limits, Window
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.postgres import PostgresResource

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    import pyarrow as pa
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

    from ml_assets.lib.staging import Buckets, Staged, TableState

_BATCH = 2_000
"""Entries of one request; Chroma takes at most 5,461."""

_MANIFEST = """
CREATE TABLE IF NOT EXISTS ledger.chroma_manifest (
    collection text NOT NULL,
    key text NOT NULL,
    id text NOT NULL,
    partition text NOT NULL,
    vector bytea NOT NULL,
    PRIMARY KEY (collection, key)
)
"""
_ROUNDING = 1e-6
"""Relative error of a vector that comes back from Chroma."""

_Entry = tuple[str, str, str, bytes]
"""A line of the manifest: key, id, partition, bits of the vector."""

_DOCUMENT = "text"
"""The column that becomes the entry's document."""


class ChromaIOManager(TableIOManager):
    """Writes and reads collections of Chroma.

    Args:
        chroma: the server.
        postgres: where the manifest is kept.
    """

    store: ClassVar[str] = "chroma"
    limits: ClassVar[Limits] = Limits("Chroma", nul=False, nan=False, infinity=False)

    chroma: ChromaResource
    postgres: PostgresResource

    def _write(self, contract: Contract, staged: "Staged") -> bool:
        client = self.chroma.client(write=True)
        with self.postgres.connect(write=True) as connection:
            changed = write(client, connection, contract, staged)
        if changed:
            # A transaction of its own, under the same lock: another writer may have come in between.
            with self.postgres.connect(write=True) as connection:
                sweep(client, connection, contract)
        return changed

    def _read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.lib.arrow_types import arrow_schema

        schema = arrow_schema(contract, columns)

        def batches() -> "Iterator[pa.RecordBatch]":
            with self.postgres.connect(write=True) as connection:
                for batch in _entries(self.chroma.client(write=True), connection, contract, window):
                    yield batch.select(schema.names)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _remembered(self, asset: str) -> Contract | None:
        from ml_assets.lib import postgres_table

        with self.postgres.connect() as connection:
            return postgres_table.remembered(connection, asset)


def recorded(chroma: ChromaResource, postgres: PostgresResource, contract: Contract) -> "TableState":
    """Rows and content hash as noted when the collection was written."""
    from ml_assets.lib import postgres_table
    from ml_assets.lib.staging import table_state

    with postgres.connect() as connection:
        return table_state(postgres_table.recorded_buckets(connection, contract))


def measured(chroma: ChromaResource, postgres: PostgresResource, contract: Contract) -> "TableState":
    """Rows and content hash of what the collection's live entries hold now."""
    from ml_assets.lib.staging import measure, table_state

    with postgres.connect(write=True) as connection:
        if not _manifest(connection, contract.table):
            return table_state({})
        with chroma.client(write=True) as client:
            held = _entries(client, connection, contract, missing_ok=True)
            return table_state(measure(held, contract))


def live_ids(connection: "psycopg.Connection", collection: str) -> list[str]:
    """Ids of the entries that count, in order of their keys; whoever searches asks for these only."""
    return list(_manifest(connection, collection).values())


def write(
    client: "ClientAPI", connection: "psycopg.Connection", contract: Contract, staged: "Staged"
) -> bool:
    """Add what is new to Chroma, then say in the manifest what is live; the caller's commit makes it so.

    Returns:
        Whether anything had to be changed.
    """
    from ml_assets.lib import postgres_table
    from ml_assets.lib.staging import confirmed, measure

    postgres_table.lock(connection, contract.asset)
    _ensure_manifest(connection, contract)
    collection = ensure_collection(client, contract)
    sweep(client, connection, contract)
    before = postgres_table.recorded_buckets(connection, contract)
    present = set(_all_ids(collection))

    def measured_now(window: Window) -> "Buckets":
        live = _manifest(connection, contract.table)
        if not present.issuperset(live.values()):
            return {}
        held = measure(_entries(client, connection, contract, window), contract, staged.bucket_us)
        if any(held.get(bucket) != state for bucket, state in before.items() if staged.covers(bucket)):
            present.clear()  # somebody has changed entries by hand: bring all of them again
        return held

    upsert = contract.mode == "upsert"
    changed = set(staged.buckets) if upsert else confirmed(staged, before, measured_now)
    if not changed:
        return False
    if not _flip(connection, contract, staged, changed, _add(collection, contract, staged, changed, present)):
        return False
    if upsert:
        # The rows are those of the manifest now, not only the staged ones.
        held = measure(_entries(client, connection, contract), contract, staged.bucket_us)
        postgres_table.record(connection, contract, held, None, staged.bucket_us)
    else:
        every = staged.window.whole
        held = {b: state for b, state in staged.buckets.items() if every or b in changed}
        postgres_table.record(connection, contract, held, None if every else changed, staged.bucket_us)
    return True


def _ensure_manifest(connection: "psycopg.Connection", contract: Contract) -> None:
    """Create the manifest if it is not there, and see whether the collection still follows its contract.

    Raises:
        ContractViolation: its columns or key are others than when it was made; entries cannot be altered.
    """
    from ml_assets.lib import postgres_table
    from ml_assets.lib.arrow_types import ContractViolation
    from ml_assets.lib.contract_json import refuse_new_identity

    postgres_table.ensure_ledger(connection)
    if not postgres_table.table_exists(connection, "ledger", "chroma_manifest"):
        connection.execute(_MANIFEST)
    old = postgres_table.remembered(connection, contract.asset)
    if old is not None and _manifest(connection, contract.table):
        drop = "ml_assets.io_managers.chroma.forget(chroma, postgres, contract)"
        refuse_new_identity(old, contract, drop)
        for column in old.columns:
            new = contract.by_name.get(column.name)
            if new is None or (new.type, new.dimension) != (column.type, column.dimension):
                was, now = (_described(one) for one in (column, new))
                raise ContractViolation(
                    f"{contract.asset}: column {column.name!r} was {was} when the collection was made and is {now} in "
                    f"the contract; run {drop} and materialize it again, or undo the change. Nothing was written."
                )
        for column in contract.columns:
            if column.name not in old.by_name and not column.nullable:
                raise ContractViolation(
                    f"{contract.asset}: the contract has a new column {column.name!r} that may not be null, and the "
                    "entries have no value for it; make it nullable. Nothing was written."
                )
    postgres_table.remember(connection, contract)


def _described(column: Column | None) -> str:
    return (
        "missing" if column is None else f"{column.type}{f'({column.dimension})' if column.dimension else ''}"
    )


def forget(chroma: ChromaResource, postgres: PostgresResource, contract: Contract) -> None:
    """Delete a collection and all that is noted of it, to make way for one of another contract."""
    from ml_assets.lib import postgres_table

    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)
        connection.execute("DELETE FROM ledger.chroma_manifest WHERE collection = %s", [contract.table])
        connection.execute("DELETE FROM ledger.contracts WHERE asset = %s", [contract.asset])
        postgres_table.record(connection, contract, {}, None, 0)
        client = chroma.client(write=True)
        if contract.table in [collection.name for collection in client.list_collections()]:
            client.delete_collection(contract.table)


def ensure_collection(client: "ClientAPI", contract: Contract) -> "Collection":
    """The collection, made with cosine distance if it is not there.

    Raises:
        ContractViolation: it is there with another distance, which Chroma cannot change.
    """
    from ml_assets.lib.arrow_types import ContractViolation

    collection = client.get_or_create_collection(
        contract.table, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )
    space = (collection.configuration_json.get("hnsw") or {}).get("space")
    if space != "cosine":
        raise ContractViolation(
            f"{contract.asset}: the collection measures distance by {space}, and Chroma cannot change that; delete "
            f"the collection {contract.table!r}, or give the asset another name, and run it again."
        )
    return collection


def sweep(client: "ClientAPI", connection: "psycopg.Connection", contract: Contract) -> int:
    """Delete entries that the manifest does not name; returns how many. Safe under the asset's lock only."""
    from ml_assets.lib import postgres_table

    postgres_table.lock(connection, contract.asset)
    collection = ensure_collection(client, contract)
    live = set(_manifest(connection, contract.table).values())
    dead = [entry for entry in _all_ids(collection) if entry not in live]
    for start in range(0, len(dead), _BATCH):
        collection.delete(ids=dead[start : start + _BATCH])
    return len(dead)


def _all_ids(collection: "Collection") -> list[str]:
    return list(collection.get(include=[])["ids"])


def _manifest(
    connection: "psycopg.Connection", collection: str, partitions: Sequence[str] | None = None
) -> dict[str, str]:
    from ml_assets.lib import postgres_table

    if not postgres_table.table_exists(connection, "ledger", "chroma_manifest"):
        return {}
    rows = connection.execute(
        "SELECT key, id FROM ledger.chroma_manifest "
        "WHERE collection = %s AND (%s::text[] IS NULL OR partition = ANY(%s)) ORDER BY key",
        [collection, partitions, partitions],
    ).fetchall()
    return dict(rows)


def _add(
    collection: "Collection", contract: Contract, staged: "Staged", changed: set[int], present: set[str]
) -> "Iterator[_Entry]":
    """Bring new entries into Chroma; gives every staged row's line of the manifest."""
    from ml_assets.lib.staging import bucket_name, row_hashes

    for batch in staged.batches(changed):
        for start in range(0, batch.num_rows, _BATCH):
            part = batch.slice(start, _BATCH)
            keys, vectors = _keys(part, contract), _vectors(part, contract)
            hashes, buckets = row_hashes(part, contract, staged.bucket_us)
            ids = [f"{key}:{digest:016x}" for key, digest in zip(keys, hashes, strict=True)]
            new = [n for n, entry in enumerate(ids) if entry not in present]
            if new:
                rows = part.take(new)
                collection.upsert(
                    ids=[ids[n] for n in new], embeddings=vectors[new], **_encoded(rows, contract)
                )
            for key, entry, bucket, vector in zip(keys, ids, buckets, vectors, strict=True):
                yield key, entry, bucket_name(bucket, contract, staged.bucket_us), vector.tobytes()


def _flip(
    connection: "psycopg.Connection",
    contract: Contract,
    staged: "Staged",
    changed: set[int],
    entries: "Iterable[_Entry]",
) -> bool:
    """Make the manifest name the entries, and no others in the slice; returns whether that changed it."""
    from ml_assets.lib.staging import bucket_name

    connection.execute(
        "CREATE TEMPORARY TABLE live (key text PRIMARY KEY, id text, partition text, vector bytea) ON COMMIT DROP"
    )
    with connection.cursor() as cursor, cursor.copy("COPY live FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["text", "text", "text", "bytea"])
        for entry in entries:
            copy.write_row(entry)
    deleted = 0
    if contract.mode != "upsert":
        names = None if staged.window.whole else [bucket_name(b, contract, staged.bucket_us) for b in changed]
        deleted = connection.execute(
            "DELETE FROM ledger.chroma_manifest AS old WHERE collection = %s "
            "AND (%s::text[] IS NULL OR partition = ANY(%s)) "
            "AND NOT EXISTS (SELECT FROM live WHERE live.key = old.key)",
            [contract.table, names, names],
        ).rowcount
    inserted = connection.execute(
        "INSERT INTO ledger.chroma_manifest AS old SELECT %s, key, id, partition, vector FROM live "
        "ON CONFLICT (collection, key) DO UPDATE "
        "SET id = excluded.id, partition = excluded.partition, vector = excluded.vector "
        "WHERE (old.id, old.partition) <> (excluded.id, excluded.partition)",
        [contract.table],
    ).rowcount
    connection.execute("DROP TABLE live")
    return bool(deleted or inserted)


def _entries(
    client: "ClientAPI",
    connection: "psycopg.Connection",
    contract: Contract,
    window: Window = WHOLE,
    missing_ok: bool = False,
) -> "Iterator[pa.RecordBatch]":
    """Live entries as rows, in order of their keys.

    Args:
        missing_ok: leave out what is not in Chroma any more, for whoever measures what is there.

    Raises:
        LookupError: the collection was never written.
        RuntimeError: an entry that the manifest names is not in Chroma, unless `missing_ok`.
    """
    from ml_assets.lib import postgres_table
    from ml_assets.lib.arrow_types import never_written

    if postgres_table.remembered(connection, contract.asset) is None:
        raise never_written(contract.asset)
    collection = ensure_collection(client, contract)
    partitions = _partition_names(contract, window)
    with connection.cursor(name="live_entries") as cursor:
        cursor.execute(
            "SELECT id, vector FROM ledger.chroma_manifest "
            "WHERE collection = %s AND (%s::text[] IS NULL OR partition = ANY(%s)) ORDER BY key",
            [contract.table, partitions, partitions],
        )
        while wanted := cursor.fetchmany(_BATCH):
            yield _fetch(collection, contract, dict(wanted), missing_ok)


def _partition_names(contract: Contract, window: Window) -> list[str] | None:
    from datetime import timedelta

    if contract.partition_column is None or window.start is None or window.end is None:
        return None
    return [f"{window.start + timedelta(days=n):%Y-%m-%d}" for n in range((window.end - window.start).days)]


def _fetch(
    collection: "Collection", contract: Contract, wanted: dict[str, bytes], missing_ok: bool
) -> "pa.RecordBatch":
    """Entries by id, in this order, with the vectors' own bits."""
    import pyarrow as pa

    from ml_assets.lib.arrow_types import arrow_schema

    got: Any = collection.get(ids=list(wanted), include=["embeddings", "documents", "metadatas"])
    place = {entry: n for n, entry in enumerate(got["ids"])}
    if missing_ok:
        wanted = {entry: bits for entry, bits in wanted.items() if entry in place}
        if not wanted:
            return pa.RecordBatch.from_pylist([], schema=arrow_schema(contract))
    if len(place) != len(wanted):
        missing = next(entry for entry in wanted if entry not in place)
        raise RuntimeError(
            f"{contract.asset}: {len(wanted) - len(place)} entries that the manifest names are not in Chroma, "
            f"{missing!r} among them; materialize the asset again."
        )
    order = [place[entry] for entry in wanted]
    return _decoded(got, order, list(wanted.values()), contract)


def _keys(batch: "pa.RecordBatch", contract: Contract) -> list[str]:
    """Each row's key as text; several columns as JSON, so that no two keys look alike."""
    import orjson

    columns = [batch.column(name).to_pylist() for name in contract.key]
    if len(columns) == 1 and contract.by_name[contract.key[0]].type == "string":
        return columns[0]
    return [orjson.dumps(values, default=str).decode() for values in zip(*columns, strict=True)]


def _plain_columns(contract: Contract) -> Iterable[Column]:
    """Columns kept as metadata: all but the vector and the document."""
    return (c for c in contract.columns if c.type != "vector" and c.name != _DOCUMENT)


def _vectors(batch: "pa.RecordBatch", contract: Contract) -> "np.ndarray":
    import numpy as np

    vector = next(column for column in contract.columns if column.type == "vector")
    flat = batch.column(vector.name).flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(batch.num_rows, -1)


def _encoded(batch: "pa.RecordBatch", contract: Contract) -> dict[str, Any]:
    """Rows as arguments of `upsert`, but for ids and vectors."""
    columns = [(column, batch.column(column.name).to_pylist()) for column in _plain_columns(contract)]
    found: dict[str, Any] = {
        "metadatas": [
            _metadata([(column, values[n]) for column, values in columns]) for n in range(batch.num_rows)
        ]
    }
    if _DOCUMENT in contract.by_name:
        found["documents"] = batch.column(_DOCUMENT).to_pylist()
    return found


def _metadata(cells: Iterable[tuple[Column, Any]]) -> dict[str, Any]:
    """A flat dictionary: each column, and the scalars of JSON objects so that searches can filter by them."""
    scalars: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    for column, value in cells:
        if value is not None:
            columns[column.name] = value.isoformat() if column.type in ("timestamp", "date") else value
            scalars |= _scalars(value) if column.type == "json" else {}
    return scalars | columns


def _scalars(document: str) -> dict[str, Any]:
    """What Chroma can filter by of a JSON object: text, numbers and booleans of its first level."""
    import orjson

    parts = orjson.loads(document)
    return {
        name: part
        for name, part in (parts.items() if isinstance(parts, dict) else ())
        if isinstance(part, bool | str | float) or (isinstance(part, int) and -(2**63) <= part < 2**63)
    }


def _decoded(got: Any, order: list[int], bits: list[bytes], contract: Contract) -> "pa.RecordBatch":
    """Entries as rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ml_assets.lib.arrow_types import ARROW_TYPES, arrow_schema

    arrays = []
    for column in contract.columns:
        target = ARROW_TYPES[column.type]
        if column.type == "vector":
            arrays.append(_own_bits([got["embeddings"][n] for n in order], bits))
        elif column.name == _DOCUMENT:
            arrays.append(pa.array([got["documents"][n] for n in order], target))
        else:
            cells = [(got["metadatas"][n] or {}).get(column.name) for n in order]
            text = column.type in ("timestamp", "date")
            arrays.append(pc.cast(pa.array(cells, pa.string()), target) if text else pa.array(cells, target))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(contract))


def _own_bits(given: Sequence[Any], bits: Sequence[bytes]) -> "pa.Array":
    """The vectors as they were written, where Chroma's differ from them by rounding only."""
    import numpy as np
    import pyarrow as pa

    own = np.stack([np.frombuffer(vector, dtype=np.float32) for vector in bits])
    chroma = np.asarray(given, dtype=np.float32)
    length = np.linalg.norm(own.astype(np.float64), axis=1, keepdims=True)
    same = (np.abs(chroma - own) <= _ROUNDING * length).all(axis=1, keepdims=True)
    flat = pa.array(np.where(same, own, chroma).reshape(-1))
    offsets = pa.array(np.arange(len(bits) + 1, dtype=np.int32) * own.shape[1])
    return pa.ListArray.from_arrays(offsets, flat)
