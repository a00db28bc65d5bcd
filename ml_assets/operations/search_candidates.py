"""What is to be served next, built beside what is: passages, vectors, an index.

Vectors are kept batch by batch (`search_vectors`), so that a process that was killed goes on where it ended. Everything
else is made of them in seconds and kept nowhere: rows wait in files of this process, and what is judged lies in a
temporary table, which ends with its transaction.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract, tables
from ml_assets.embedders.incremental import EmbeddingCount, embed_changed
from ml_assets.errors import missing_table
from ml_assets.lib.passages import VECTOR_COLUMNS, chunk_documents
from ml_assets.lib.search_setup import Passages, VectorIndex
from ml_assets.lib.sql import quote_identifier
from ml_assets.lib.words import counted
from ml_assets.operations.made_before import vectors_as_sent
from ml_assets.operations.search_texts import DOCUMENTS, RUNS, AskedOf, Subject
from ml_assets.operations.search_words import table_version
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    import pyarrow as pa

    from ml_assets.embedders import Embedder
    from ml_assets.resources.postgres import PostgresResource
    from ml_assets.tables.staging import Staged

CHUNKS, RAW = "duckdb/document_chunks", "duckdb/raw_documents"

ALIAS = "search_model"
"""What the lock of the alias goes by: shared by those who write rows for it, alone with who moves it."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Setup:
    """What searches are served by, or are to be.

    Args:
        settings: that make the model.
        embedder: the model.
        passages: how documents are cut.
        index: how vectors are indexed.
    """

    settings: Settings
    embedder: "Embedder"
    passages: Passages
    index: VectorIndex


@dataclass
class Built:
    """Rows that are to be served, and of which state they are.

    Attributes:
        chunks: passages, as they lie in the lake; None if documents are not cut otherwise.
        vectors: rows by subject, of those whose rows change.
        versions: by subject what its table held, and by asset what it is made of.
    """

    chunks: "Staged | None" = None
    vectors: "dict[Subject, Staged]" = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass
class Builder:
    """Builds a setup beside the one that is served.

    Args:
        resources: by store name.
        new: what is built.
        served: name of the model that is served.
        progress: is told in words how far it is.
    """

    resources: Mapping[str, Any]
    new: Setup
    served: str
    progress: Progress

    @property
    def _postgres(self) -> "PostgresResource":
        return self.resources["postgres"]

    @contextmanager
    def built(self, subjects: Sequence[Subject]) -> Iterator[Built]:
        """The rows of some subjects as they are to be served; what has a vector already is not embedded."""
        from ml_assets.stores.postgres import PostgresStore
        from ml_assets.tables.staging import stage

        contracts = tables(self.new.settings)
        found = Built(versions=self.versions(subjects))
        with ExitStack() as until_then:
            for subject in subjects:
                with ExitStack() as reading:
                    if subject is DOCUMENTS:
                        found.chunks = until_then.enter_context(self.cut())
                        self.progress(f"{subject.table}: cut into {counted(found.chunks.rows, 'passage')}")
                        texts = _passages(found.chunks)
                    else:
                        # Read to the end before anything is moved: who reads a table keeps its indexes from going.
                        texts = reading.enter_context(self._cards(subject))
                    rows, contract = self._embedded(texts, subject), contracts[subject.asset]
                    staged = stage(rows, contract, PostgresStore.limits)
                found.vectors[subject] = until_then.enter_context(staged)
            yield found

    def versions(
        self, subjects: Sequence[Subject], connection: "psycopg.Connection | None" = None
    ) -> dict[str, str]:
        """What the tables hold that are replaced, and what the passages are cut from.

        Args:
            connection: on which the tables are locked; then only what that can keep as it is.
        """
        contracts = tables(self.new.settings)
        if connection is None:
            with self._postgres.connect() as asked:
                found = self.versions(subjects, asked)
            if DOCUMENTS in subjects:
                found[RAW] = self.documents()
            return found
        return {
            subject.asset: table_version(
                connection,
                contracts[subject.asset],
                quote_identifier(subject.key),
                quote_identifier(subject.table),
            )
            for subject in subjects
        }

    def documents(self) -> str:
        """What the documents are now that passages are cut from."""
        return str(self._lake().ledger_state(tables(self.new.settings)[RAW]).content_hash)

    @contextmanager
    def cut(self) -> "Iterator[Staged]":
        """The passages of all documents, as the graph would cut them for the setup.

        Raises:
            StoreUnavailable: there are no documents to be cut.
        """
        from ml_assets.stores.duckdb import DuckLakeStore
        from ml_assets.tables.staging import stage
        from ml_assets.tables.validation import WHOLE

        contracts, lake = tables(self.new.settings), self._lake()
        raw = contracts[RAW]
        if lake.last_contract(RAW) is None:
            raise missing_table(RAW)
        documents = lake.read(raw, raw.names, WHOLE)
        rows = chunk_documents(documents, self.new.embedder, self.new.passages)
        with stage(rows, contracts[CHUNKS], DuckLakeStore.limits) as staged:
            yield staged

    def _lake(self) -> Any:
        from ml_assets.stores.duckdb import DuckLakeStore

        return DuckLakeStore(self.resources["lake"], self.resources["postgres"])

    @contextmanager
    def _cards(self, subject: Subject) -> "Iterator[pa.RecordBatchReader]":
        """The rows of a table without what a model has made of them."""
        import pyarrow as pa

        from ml_assets.stores import postgres_table
        from ml_assets.tables.arrow_types import arrow_schema

        contract = tables(self.new.settings)[subject.asset]
        columns = [name for name in contract.names if name not in ("embedding", "model_name")]
        with self._postgres.connect(write=True) as reading:
            batches = postgres_table.read(reading, contract, columns)
            yield pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches)

    def _embedded(self, texts: "pa.RecordBatchReader", subject: Subject) -> "pa.RecordBatchReader":
        """The texts with vectors of the new model, each batch of which is kept at once."""
        import pyarrow as pa

        embedder = self.new.embedder
        owners = read_sql("postgres/search_model/states.sql").format(**_quoted(subject))
        with self._postgres.connect(write=True) as connection:
            states = dict(connection.execute(owners.encode()).fetchall())
        rows = embed_changed(texts, subject.key, embedder, self._known(subject), EmbeddingCount())

        def kept() -> "Iterator[pa.RecordBatch]":
            done = 0
            for batch in rows:
                put = [
                    {
                        "table": subject.table,
                        "model_name": embedder.name,
                        "content_hash": row["content_hash"],
                        "owner": row[subject.owner],
                        "state": states.get(row[subject.owner], ""),
                        "embedding": f"[{','.join(map(repr, row['embedding']))}]",
                    }
                    for row in batch.select(
                        list(dict.fromkeys([subject.owner, "content_hash", "embedding"]))
                    ).to_pylist()
                ]
                with self._postgres.connect(write=True) as writing, writing.cursor() as cursor:
                    cursor.executemany(read_sql("postgres/search_model/put.sql"), put)
                done += len(put)
                self.progress(f"{subject.table}: {counted(done, 'text')} embedded by {embedder.name}")
                yield batch

        return pa.RecordBatchReader.from_batches(rows.schema, kept())

    def _known(self, subject: Subject) -> "Callable[[Sequence[str], Sequence[str]], dict[str, np.ndarray]]":
        """Vectors of the new model that there are: beside the served ones, and among them if they are of the same."""
        beside = read_sql("postgres/search_model/known.sql")
        among = read_sql("postgres/embeddings/known_elsewhere.sql").format(
            table=quote_identifier(subject.table)
        )

        def known(keys: Sequence[str], hashes: Sequence[str]) -> "dict[str, np.ndarray]":
            given = {"table": subject.table, "model_name": self.new.embedder.name, "hashes": list(hashes)}
            with self._postgres.connect() as connection:
                found = connection.execute(beside, given, binary=True).fetchall()
                missing = sorted(set(hashes) - {each for each, _ in found})
                if missing and self.new.embedder.name == self.served:
                    given["hashes"] = missing
                    found += connection.execute(among.encode(), given, binary=True).fetchall()
                return vectors_as_sent(found)

        return known


def _passages(chunks: "Staged") -> "pa.RecordBatchReader":
    """Passages as they are embedded."""
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema

    held = arrow_schema(chunks.contract)
    schema = pa.schema([held.field(old).with_name(new) for new, old in VECTOR_COLUMNS.items()])
    batches = (
        pa.RecordBatch.from_arrays([batch[old] for old in VECTOR_COLUMNS.values()], schema=schema)
        for batch in chunks.batches()
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def _quoted(subject: Subject) -> dict[str, str]:
    return {name: quote_identifier(getattr(subject, name)) for name in ("table", "key", "owner")}


CANDIDATE = replace(DOCUMENTS, table=f"{DOCUMENTS.table}_candidate")
"""What is judged in place of the documents that are served; a temporary table of one transaction."""


def candidate(connection: "psycopg.Connection", new: Setup, rows: "Staged | None", indexed: bool) -> AskedOf:
    """Make a temporary table of what documents are to be found by.

    Args:
        connection: of the transaction that judges; the table ends with it.
        rows: with their vectors; None for those that are served, whose index alone is another one.
        indexed: whether to index them, and to ask the index.
    """
    from ml_assets.stores import postgres_table
    from ml_assets.stores.postgres_table.ddl import sql_type
    from ml_assets.stores.postgres_table.vector_indexes import index_alone

    contract = replace(tables(new.settings)[DOCUMENTS.asset], asset=CANDIDATE.asset)
    table, key = quote_identifier(CANDIDATE.table), quote_identifier(CANDIDATE.key)
    columns = ", ".join(f"{quote_identifier(each.name)} {sql_type(each)}" for each in contract.columns)
    postgres_table.run(
        connection, f"CREATE TEMPORARY TABLE {table} ({columns}, PRIMARY KEY ({key})) ON COMMIT DROP"
    )
    if rows is not None:
        postgres_table.copy_in(connection, f"pg_temp.{table}", contract, rows.batches())
    else:
        names = ", ".join(map(quote_identifier, contract.names))
        served = quote_identifier(DOCUMENTS.table)
        postgres_table.run(connection, f"INSERT INTO {table} ({names}) SELECT {names} FROM {served}")
    if indexed:
        index_alone(connection, table, contract, new.index)
    postgres_table.run(connection, f"ANALYZE {table}")
    texts_of = DOCUMENTS if rows is None else None
    return AskedOf(CANDIDATE, new.embedder, new.index, contract, by_index=indexed, texts_of=texts_of)


def remove_words(settings: Settings) -> None:
    """Remove the index of words of what was judged."""
    for folder in (settings.home / "search" / "words").glob(f"{CANDIDATE.table}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def forget(connection: "psycopg.Connection", subject: Subject) -> None:
    """Forget the vectors of a subject beside those that are served; those of the other one stay."""
    connection.execute(read_sql("postgres/search_model/forget.sql"), {"table": subject.table})


def keep(connection: "psycopg.Connection", subject: Subject) -> None:
    """Keep the vectors that are served beside those that take their place."""
    statement = read_sql("postgres/search_model/keep.sql").format(**_quoted(subject))
    connection.execute(statement.encode(), {"table": subject.table})


def renew(connection: "psycopg.Connection", subject: Subject) -> None:
    """Have what was kept belong to what is served now."""
    connection.execute(*_about_states("renew", subject))


@contextmanager
def alias_stays(postgres: "PostgresResource") -> Iterator[None]:
    """Have a switch wait with moving the alias until the block ends, and wait for one that moves it.

    Rows wait for their table's lock after they were looked at for the last time: without this the alias could move while
    they wait, and they would undo what it moved to.

    Raises:
        WriteBusy: a switch took longer than a write may.
    """
    from ml_assets.stores import postgres_table

    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, ALIAS, shared=True)
        yield


@contextmanager
def alias_moves(postgres: "PostgresResource") -> Iterator[None]:
    """Be the only one that moves the alias, while nobody writes rows for it.

    It is taken before the pause of a backup and before the locks of tables, as `alias_stays` is, and let go of after
    them: otherwise both could wait for each other, where no database sees it.

    Raises:
        WriteBusy: writing took longer than a write may.
    """
    from ml_assets.stores import postgres_table

    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, ALIAS)
        yield


def sweep(postgres: "PostgresResource", table: str) -> None:
    """Forget the vectors beside those that are served of texts that have changed since, or are gone."""
    subject = next((each for each in (DOCUMENTS, RUNS) if each.table == table), None)
    if subject is None:
        return
    with postgres.connect() as connection:
        if connection.execute("SELECT to_regclass('search_vectors')").fetchone() == (None,):
            return
    with postgres.connect(write=True) as connection:
        connection.execute(*_about_states("sweep", subject))


def _about_states(name: str, subject: Subject) -> tuple[bytes, dict[str, str]]:
    states = read_sql("postgres/search_model/states.sql").format(**_quoted(subject))
    statement = read_sql(f"postgres/search_model/{name}.sql").format(states=states)
    return statement.encode(), {"table": subject.table}


def contract_of(setup: Setup, subject: Subject) -> Contract:
    """The contract of a subject's table in a setup."""
    return tables(setup.settings)[subject.asset]
