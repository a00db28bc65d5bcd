"""Another embedding model takes the place of the one that is served: built beside it, judged, moved to.

The vectors of the new model lie beside those that are served (`search_candidates`), batch by batch, so that a run that
was killed goes on where it ended. They are judged with the questions of `landing/judgments`. Then one transaction puts
them in the place of the others, in both tables, and moves the alias (`search_model`), which everything that embeds goes
by. Only Chroma follows after it, and says so until it has. What belongs here: those steps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from ml_assets.contracts import INDEXED, Contract, tables
from ml_assets.embedders import make_embedder
from ml_assets.embedders.incremental import CONTEXT, EmbeddingCount, embed_changed
from ml_assets.errors import Refusal, missing_table
from ml_assets.lib.chunking import SECTION, context_of, embedding_text
from ml_assets.lib.retrieval import DEPTH, Inferiority, inferiority, measured
from ml_assets.lib.sql import quote_identifier
from ml_assets.lib.words import counted
from ml_assets.operations.search_quality import judged
from ml_assets.operations.search_texts import DOCUMENTS, RUNS, Searcher, Subject
from ml_assets.operations.search_words import table_version
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.touched_days import LOCK_SPACE, ensure_tables
from ml_assets.tables import pause

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    import pyarrow as pa

    from ml_assets.embedders import Embedder
    from ml_assets.resources.postgres import PostgresResource

_LOCK = 19
"""Of the only process that switches, within `LOCK_SPACE`."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Switched:
    """What became of it.

    Attributes:
        moved: whether the alias has moved in this call.
        served: name of the model that is served now.
        former: name of the one that was served before.
        decision: whether the new one is inferior; None if nothing had to be decided.
        sentence: all that in words.
    """

    moved: bool
    served: str
    former: str
    decision: Inferiority | None
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        decision = self.decision.as_json() if self.decision else None
        names = ("moved", "served", "former", "sentence")
        return {**{name: getattr(self, name) for name in names}, "decision": decision}


def switch(
    settings: Settings, resources: Mapping[str, Any], kind: str, force: bool, progress: Progress
) -> Switched:
    """See `Search.switch`."""
    wanted = settings.model_copy(update={"embedder": kind})
    new, old = make_embedder(wanted), resources["embedder"].get()
    postgres: PostgresResource = resources["postgres"]
    with postgres.connect() as connection:
        subjects = [each for each in (DOCUMENTS, RUNS) if _exists(connection, each.table)]
    if not subjects:
        raise missing_table(DOCUMENTS.asset)
    ensure_tables(postgres, "search_model", "postgres/search_model/schema.sql")
    with _only_one(postgres):
        if new.name == old.name:
            behind = _behind(postgres)
            if behind:
                _follow(wanted, resources, progress)
            also = "; its indexes follow it now" if behind else ""
            return Switched(False, old.name, old.name, None, f"{old.name} is what is served already{also}.")
        _require_one_model(postgres, subjects, old.name)
        cut_off = sum(_build(postgres, settings, subject, new, progress) for subject in subjects)
        decision = _judge(settings, resources, new, progress)
        if decision.answer != "no" and not force:
            told = f"{decision} {old.name} stays; --force moves all the same."
            return Switched(False, old.name, old.name, decision, told)
        _move(postgres, settings, wanted, subjects, new, old.name, decision, progress)
        _follow(wanted, resources, progress)
    told = f"{decision} {new.name} is served now in place of {old.name}."
    if cut_off:
        told += (
            f" Of {counted(cut_off, 'passage')} it read the beginning alone, since they were cut for another model: set "
            f"ML_ASSETS_EMBEDDER={kind} and run 'ml-assets refresh', which cuts the documents for it."
        )
    if new.dimension != settings.embedding_dimension:
        told += (
            f" Its vectors have {new.dimension} numbers: set ML_ASSETS_EMBEDDER={kind} before the next run."
        )
    return Switched(True, new.name, old.name, decision, told)


def _exists(connection: "psycopg.Connection", table: str) -> bool:
    return connection.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,)


@contextmanager
def _only_one(postgres: "PostgresResource") -> Iterator[None]:
    with postgres.connect(write=True) as connection:
        got = connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCK_SPACE, _LOCK)).fetchone()
        if got != (True,):
            raise Refusal("Another process is switching the embedding model: wait until it is done.")
        yield


def _behind(postgres: "PostgresResource") -> bool:
    with postgres.connect() as connection:
        row = connection.execute(read_sql("postgres/search_model/served.sql")).fetchone()
    return row is not None and not row[3]


def _require_one_model(postgres: "PostgresResource", subjects: Sequence[Subject], served: str) -> None:
    for subject in subjects:
        with postgres.connect() as connection:
            models = {name for (name,) in connection.execute(subject.sql("models")).fetchall()}
        if others := sorted(models - {served}):
            raise Refusal(
                f"{subject.asset} holds vectors of {', '.join(others)}, and {served} is to be served: run 'ml-assets "
                "embeddings repair' first, which embeds them anew."
            )


def _texts(
    connection: "psycopg.Connection", settings: Settings, subject: Subject, new: "Embedder"
) -> "pa.RecordBatchReader":
    """The rows of a table without what a model has made of them, and what the new one is given before a passage."""
    import pyarrow as pa

    from ml_assets.stores import postgres_table
    from ml_assets.tables.arrow_types import arrow_schema

    contract = tables(settings)[subject.asset]
    columns = [name for name in contract.names if name not in ("embedding", "model_name")]
    schema = arrow_schema(contract, columns)
    batches = postgres_table.read(connection, contract, columns)
    if "section" not in columns:
        return pa.RecordBatchReader.from_batches(schema, batches)
    # As the graph gives it: title and headings, as far as they fit.
    read = (
        batch.append_column(
            CONTEXT,
            pa.array(
                [
                    context_of(title, section.split(SECTION) if section else (), new) or None
                    for title, section in zip(
                        batch["title"].to_pylist(), batch["section"].to_pylist(), strict=True
                    )
                ],
                pa.string(),
            ),
        )
        for batch in batches
    )
    return pa.RecordBatchReader.from_batches(schema.append(pa.field(CONTEXT, pa.string())), read)


def _embedded(
    postgres: "PostgresResource", rows: "pa.RecordBatchReader", subject: Subject, new: "Embedder"
) -> "pa.RecordBatchReader":
    """The rows with vectors of the new model: those that lie beside the served ones, and new ones where there is none."""

    def known(keys: Sequence[str], hashes: Sequence[str]) -> "dict[str, np.ndarray]":
        from pgvector.psycopg import register_vector

        given = {"table": subject.table, "model_name": new.name, "keys": list(keys)}
        with postgres.connect() as connection:
            register_vector(connection)
            found = connection.execute(read_sql("postgres/search_model/known.sql"), given)
            return {found_hash: vector.to_numpy() for found_hash, vector in found}

    return embed_changed(rows, subject.key, new, known, EmbeddingCount())


def _build(
    postgres: "PostgresResource", settings: Settings, subject: Subject, new: "Embedder", progress: Progress
) -> int:
    """Embed what the new model has not embedded yet, and keep each batch at once.

    Returns:
        How many passages it was given that are longer than it reads. A server refuses them instead.
    """
    import pyarrow as pa

    done = cut_off = 0

    def measured_rows(rows: "pa.RecordBatchReader") -> "Iterator[pa.RecordBatch]":
        nonlocal cut_off
        for batch in rows:
            if CONTEXT in batch.schema.names and not new.estimates_tokens:
                given = zip(batch[CONTEXT].to_pylist(), batch["text"].to_pylist(), strict=True)
                counts = new.count_tokens([embedding_text(context, text) for context, text in given])
                cut_off += sum(count > new.max_tokens for count in counts)
            yield batch

    with postgres.connect(write=True) as reading:
        texts = _texts(reading, settings, subject, new)
        texts = pa.RecordBatchReader.from_batches(texts.schema, measured_rows(texts))
        for batch in _embedded(postgres, texts, subject, new):
            rows = [
                {
                    "table": subject.table,
                    "key": row[subject.key],
                    "model_name": new.name,
                    "content_hash": row["content_hash"],
                    "embedding": f"[{','.join(map(repr, row['embedding']))}]",
                }
                for row in batch.select([subject.key, "content_hash", "embedding"]).to_pylist()
            ]
            with postgres.connect(write=True) as writing, writing.cursor() as cursor:
                cursor.executemany(read_sql("postgres/search_model/put.sql"), rows)
            done += len(rows)
            progress(f"{subject.table}: {counted(done, 'text')} embedded by {new.name}")
    return cut_off


def _judge(
    settings: Settings, resources: Mapping[str, Any], new: "Embedder", progress: Progress
) -> Inferiority:
    searcher = Searcher(settings, resources)
    questions, _ = judged(resources["lake"], searcher.owners(DOCUMENTS))
    if not questions:
        return inferiority([], [])
    progress(f"asking {counted(len(questions), 'judged question')}")
    texts = [question.text for question in questions]
    found = list(searcher.each_way(DOCUMENTS, texts, DEPTH, new))
    of_new, of_old = (
        measured(questions, [each[way] for each in found])["ndcg"] for way in ("candidate", "hybrid")
    )
    return inferiority(of_new, of_old)


def _move(
    postgres: "PostgresResource",
    settings: Settings,
    wanted: Settings,
    subjects: Sequence[Subject],
    new: "Embedder",
    old: str,
    decision: Inferiority,
    progress: Progress,
) -> None:
    """Put the new vectors in place and move the alias, in one transaction; again if a table has changed meanwhile."""
    from ml_assets.stores import postgres_table
    from ml_assets.stores.postgres import PostgresStore
    from ml_assets.tables.staging import stage

    contracts = tables(wanted)
    while True:
        with ExitStack() as open_now:
            staged, read_at = [], []
            for subject in subjects:
                with postgres.connect(write=True) as reading:
                    reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    read_at.append(_version(reading, settings, subject))
                    rows = _embedded(postgres, _texts(reading, settings, subject, new), subject, new)
                    contract = contracts[subject.asset]
                    staged.append(open_now.enter_context(stage(rows, contract, PostgresStore.limits)))
            with pause.writing(settings.home), postgres.connect(write=True) as connection:
                for subject in subjects:
                    postgres_table.lock(connection, subject.asset)
                if [_version(connection, settings, subject) for subject in subjects] != read_at:
                    progress("the texts have changed meanwhile: once more")
                    continue
                for subject, rows in zip(subjects, staged, strict=True):
                    names = {name: quote_identifier(getattr(subject, name)) for name in ("table", "key")}
                    keep = read_sql("postgres/search_model/keep.sql").format(**names)
                    connection.execute(keep.encode(), {"table": subject.table})
                    contract = contracts[subject.asset]
                    if _of_another_length(postgres_table.last_contract(connection, subject.asset), contract):
                        # A column has vectors of one length: the table is made anew, and its rows are those staged.
                        connection.execute(f"DROP TABLE {names['table']}".encode())
                    postgres_table.write(connection, contract, rows)
                # Going back to the former model takes no embedding; those before it are nobody's.
                connection.execute(read_sql("postgres/search_model/forget.sql"), {"kept": [old]})
                row = {
                    "model_name": new.name,
                    "settings": orjson.dumps(_of_model(wanted)).decode(),
                    "moved_from": old,
                    "evidence": orjson.dumps(decision.as_json()).decode(),
                }
                connection.execute(read_sql("postgres/search_model/move.sql"), row)
            return


def _of_another_length(made: Contract | None, wanted: Contract) -> bool:
    """Whether a table was made for vectors of another length than is wanted."""
    lengths = [each.by_name["embedding"].dimension for each in (made, wanted) if each is not None]
    return len(set(lengths)) > 1


def _of_model(wanted: Settings) -> dict[str, Any]:
    """The settings by which the model is made again, without addresses and secrets."""
    kind = wanted.embedder
    names = [f"{kind}_{name}" for name in ("model", "dimension", "max_tokens")]
    known = {name: getattr(wanted, name) for name in names if name in type(wanted).model_fields}
    return {"embedder": kind, **known}


def _version(connection: "psycopg.Connection", settings: Settings, subject: Subject) -> str:
    contract = tables(settings)[subject.asset]
    return table_version(connection, contract, quote_identifier(subject.key), quote_identifier(subject.table))


def _follow(wanted: Settings, resources: Mapping[str, Any], progress: Progress) -> None:
    """Carry the vectors over to the indexes that are made of them, and note that they follow."""
    from ml_assets.stores.registry import stores
    from ml_assets.stores.vectors import VectorStore
    from ml_assets.tables.staging import stage
    from ml_assets.tables.validation import WHOLE

    contracts = tables(wanted)
    held = {store.prefix: store for store in stores(resources)}
    for index, parent in INDEXED.items():
        if index not in contracts:  # of a store that is not configured
            continue
        contract, upstream = contracts[index], contracts[parent]
        store = held[contract.store]
        made = store.last_contract(contract.asset)
        if made is None:  # nobody has made it yet
            continue
        progress(f"{index} follows")
        rows = held[upstream.store].read(upstream, contract.names, WHOLE)
        with stage(rows, contract, store.limits) as staged, pause.writing(wanted.home):
            if isinstance(store, VectorStore) and _of_another_length(made, contract):
                store.forget(contract)
            store.write(contract, staged)
    with resources["postgres"].connect(write=True) as connection:
        name = {"model_name": make_embedder(wanted).name}
        connection.execute(read_sql("postgres/search_model/followed.sql"), name)
