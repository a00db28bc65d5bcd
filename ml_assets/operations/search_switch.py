"""Another model, another cut of the documents, or another index takes the place of what is served: built beside it,
judged, moved to.

What is new is built beside what is served (search_candidates.py) and judged with the questions of `landing/judgments`.
Then one transaction puts it in the place of the other and moves the alias (`search_model`), which everything that cuts,
embeds, indexes and searches goes by. The passages in the lake and the indexes elsewhere follow after it, and are noted
until they have. What belongs here: those steps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from ml_assets.contracts import INDEXED, Contract, tables
from ml_assets.embedders import make_embedder
from ml_assets.errors import Refusal, WriteBusy, missing_table
from ml_assets.lib.retrieval import DEPTH, Inferiority, inferiority, measured
from ml_assets.lib.search_setup import as_settings, cut_for, with_changes
from ml_assets.lib.sql import quote_identifier
from ml_assets.lib.words import counted
from ml_assets.operations.search_candidates import (
    CHUNKS,
    RAW,
    Builder,
    Built,
    Setup,
    alias_moves,
    candidate,
    contract_of,
    forget,
    keep,
    remove_words,
    renew,
)
from ml_assets.operations.search_quality import EXACT_QUESTIONS, judged
from ml_assets.operations.search_texts import DOCUMENTS, RUNS, AskedOf, Searcher, Subject, recalls
from ml_assets.resources.embedder import of_model
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.touched_days import LOCK_SPACE, ensure_tables
from ml_assets.tables import pause

if TYPE_CHECKING:
    import psycopg

    from ml_assets.resources.postgres import PostgresResource

_LOCK = 19
"""Of the only process that switches, within `LOCK_SPACE`."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Judged:
    """What the judged questions tell of what is new.

    Attributes:
        decision: whether it is inferior.
        recall: of another index, whether it finds less of what is nearest; None if the index is the same.
        recall_of: the share of the nearest passages that the new index finds, and the served one.
    """

    decision: Inferiority
    recall: Inferiority | None = None
    recall_of: tuple[float, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether it is not inferior."""
        return all(each.answer == "no" for each in (self.decision, self.recall) if each)

    def __str__(self) -> str:
        if self.recall is None or self.recall_of is None:
            return str(self.decision)
        new, old = self.recall_of
        return f"{self.decision} {self.recall} It finds {new:.4f} of the ten nearest passages, the served one {old:.4f}."


@dataclass(frozen=True)
class Switched:
    """What became of it.

    Attributes:
        moved: whether the alias has moved in this call.
        served: name of the model that is served now.
        former: name of the one that was served before.
        decision: whether what is new is inferior; None if nothing had to be decided.
        sentence: all that in words.
        passages: how documents are cut now.
        index: how vectors are indexed now.
        recall: of another index, the share of the nearest passages that it finds, and that the served one finds.
    """

    moved: bool
    served: str
    former: str
    decision: Inferiority | None
    sentence: str
    passages: Mapping[str, Any]
    index: Mapping[str, Any]
    recall: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "decision": self.decision.as_json() if self.decision else None}


def switch(
    settings: Settings,
    resources: Mapping[str, Any],
    kind: str | None,
    changes: Mapping[str, Any],
    force: bool,
    progress: Progress,
) -> Switched:
    """See `Search.switch`."""
    postgres: PostgresResource = resources["postgres"]
    with postgres.connect() as connection:
        subjects = [each for each in (DOCUMENTS, RUNS) if _exists(connection, each.table)]
    if not subjects:
        raise missing_table(DOCUMENTS.asset)
    ensure_tables(postgres, "search_vectors", "postgres/search_model/schema.sql")
    with _only_one(postgres):
        move = _planned(settings, resources, kind, changes, subjects, progress)
        behind = _behind(move)
        if move.is_nothing:
            also = "; what is made of it follows now" if _follow(move, behind) else ""
            return move.told(False, None, f"{move.new.embedder.name} is what is served already{also}.")
        _require_one_model(postgres, subjects, move.old.embedder.name)
        progress(move.plan)
        with ExitStack() as until_then:
            built = until_then.enter_context(move.builder.built(move.rewritten))
            found = _judge(move, built)
            if not found.passed and not force:
                stays = f"{move.old.embedder.name} stays" if move.model else "What is served stays"
                return move.told(False, found, f"{found} {stays}; --force moves all the same.")
            while not _moved(move, built, found, behind):
                progress("the texts have changed meanwhile: once more")
                until_then.close()
                built = until_then.enter_context(move.builder.built(move.rewritten))
            _follow(move, _to_follow(postgres), built)
    told = f"{found} {move.change}"
    dimension = move.new.embedder.dimension
    if dimension != settings.embedding_dimension:
        told += (
            f" Its vectors have {dimension} numbers: set ML_ASSETS_EMBEDDER={move.new.settings.embedder} before the next "
            "run."
        )
    return move.told(True, found, told)


@dataclass(frozen=True)
class _Move:
    """From what to what.

    Args:
        old, new: what is served, and what is to be.
        named: whether the alias names what is served; the settings do it before the first switch.
        subjects: the tables that there are.
        builder: builds the new.
    """

    old: Setup
    new: Setup
    named: bool
    subjects: Sequence[Subject]
    resources: Mapping[str, Any]
    builder: Builder
    progress: Progress

    @property
    def model(self) -> bool:
        """Whether the model is another one."""
        return self.old.embedder.name != self.new.embedder.name

    @property
    def cut(self) -> bool:
        """Whether documents are cut otherwise."""
        return self.model or self.old.passages != self.new.passages

    @property
    def index(self) -> bool:
        """Whether the index is another one."""
        return self.old.index != self.new.index

    @property
    def is_nothing(self) -> bool:
        """Whether all is as it is."""
        return not (self.model or self.cut or self.index)

    @property
    def rewritten(self) -> list[Subject]:
        """What gets other rows: documents by another cut or model, runs by another model."""
        return [each for each in self.subjects if self.model or (self.cut and each is DOCUMENTS)]

    @property
    def what(self) -> str:
        """What is new, in words."""
        if self.model:
            return "new model"
        if self.cut:
            return "new cut of the documents"
        return "new index"

    @property
    def _differences(self) -> list[tuple[str, str]]:
        """Each thing that is another one, in words: what it is to be, and what it is."""
        found = [(self.new.embedder.name, self.old.embedder.name)] if self.model else []
        each = [(self.new.passages, self.old.passages), (self.new.index, self.old.index)]
        return [*found, *((str(new), str(old)) for new, old in each if new != old)]

    @property
    def plan(self) -> str:
        """What is built beside what, in words."""
        built = "; ".join(new for new, _ in self._differences)
        return f"{built}: built beside {self.old.embedder.name}, which is served meanwhile"

    @property
    def change(self) -> str:
        """What takes the place of what, in words."""
        served, former = ("; ".join(each) for each in zip(*self._differences, strict=True))
        if not self.model:  # a model's name is written as it is
            served = f"{served[0].upper()}{served[1:]}"
        verb = "is" if self.model or not self.cut else "are"
        return f"{served} {verb} served now in place of {former}."

    def told(self, moved: bool, found: Judged | None, sentence: str) -> Switched:
        """What became of it."""
        now = self.new if moved else self.old
        return Switched(
            moved,
            now.embedder.name,
            self.old.embedder.name,
            found.decision if found else None,
            sentence,
            asdict(now.passages),
            asdict(now.index),
            found.recall_of if found else None,
        )


def _planned(
    settings: Settings,
    resources: Mapping[str, Any],
    kind: str | None,
    changes: Mapping[str, Any],
    subjects: Sequence[Subject],
    progress: Progress,
) -> _Move:
    served = resources["embedder"].served()
    of_served = settings.model_copy(update=of_model(served.settings))
    wanted, embedder = of_served, served.embedder
    if kind is not None:
        wanted = settings.model_copy(update={"embedder": kind})
        embedder = make_embedder(wanted)
    passages, index = with_changes(served.passages, served.index, changes)
    if passages != served.passages and passages.tokens > embedder.max_tokens:
        raise Refusal(
            f"{embedder.name} reads {embedder.max_tokens:,} tokens, and passages of {passages.tokens:,} are asked for: "
            "what stands behind that would not be found. Ask for shorter ones, or for another model."
        )
    old = Setup(of_served, served.embedder, served.passages, served.index)
    new = Setup(wanted, embedder, passages, index)
    builder = Builder(resources, new, served.embedder.name, progress)
    return _Move(old, new, bool(served.settings), subjects, resources, builder, progress)


def _exists(connection: "psycopg.Connection", table: str) -> bool:
    return connection.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,)


@contextmanager
def _only_one(postgres: "PostgresResource") -> Iterator[None]:
    with postgres.connect(write=True) as connection:
        got = connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCK_SPACE, _LOCK)).fetchone()
        if got != (True,):
            raise Refusal("Another process is switching what searches are served by: wait until it is done.")
        yield


def _require_one_model(postgres: "PostgresResource", subjects: Sequence[Subject], served: str) -> None:
    for subject in subjects:
        with postgres.connect() as connection:
            models = {name for (name,) in connection.execute(subject.sql("models")).fetchall()}
        if others := sorted(models - {served}):
            raise Refusal(
                f"{subject.asset} holds vectors of {', '.join(others)}, and {served} is to be served: run 'ml-assets "
                "embeddings repair' first, which embeds them anew."
            )


def _judge(move: _Move, built: Built) -> Judged:
    """Ask the judged questions of what is served and of what is new, in one state of PostgreSQL."""
    settings, resources = move.old.settings, move.resources
    searcher = Searcher(settings, resources)
    there = searcher.owners(DOCUMENTS) if DOCUMENTS in move.subjects else set[str]()
    questions, _ = judged(resources["lake"], there)
    if not questions:
        return Judged(inferiority([], [], what=move.what))
    move.progress(f"asking {counted(len(questions), 'judged question')}")
    texts = [question.text for question in questions]
    postgres: PostgresResource = resources["postgres"]
    try:
        with postgres.connect(write=True) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            new = candidate(connection, move.new, built.vectors.get(DOCUMENTS), move.index)
            old = AskedOf(DOCUMENTS, move.old.embedder, move.old.index, by_index=move.index)
            of_new, of_old = (
                measured(questions, list(searcher.hybrid_of(connection, each, texts, DEPTH)))["ndcg"]
                for each in (new, old)
            )
            decision = inferiority(of_new, of_old, what=move.what)
            if not move.index:
                return Judged(decision)
            some = texts[:EXACT_QUESTIONS]
            shares = [
                [near / there if there else 1.0 for near, there in recalls(connection, each, some, DEPTH)]
                for each in (new, old)
            ]
    finally:
        remove_words(settings)
    recall = inferiority(shares[0], shares[1], what="new index", measure="its recall@10")
    mean_new, mean_old = (sum(each) / len(each) for each in shares)
    return Judged(decision, recall, (mean_new, mean_old))


def _moved(move: _Move, built: Built, found: Judged, behind: Sequence[str]) -> bool:
    """Put what is new in place and move the alias, in one transaction.

    Args:
        behind: what did not follow before.

    Returns:
        Whether it did; not if what it was built from has changed meanwhile.
    """
    from ml_assets.stores import postgres_table
    from ml_assets.stores.postgres_table.vector_indexes import make_vector_indexes

    postgres: PostgresResource = move.resources["postgres"]
    # Those of the most rows last: from the moment in which they are made anew nobody can read them.
    subjects = [each for each in (RUNS, DOCUMENTS) if each in move.subjects]
    to_follow = _to_be_followed(move, behind)
    with alias_moves(postgres), pause.writing(move.new.settings.home):
        if move.builder.versions(move.rewritten) != built.versions:
            return False
        with postgres.connect(write=True) as connection:
            for subject in subjects:
                postgres_table.lock(connection, subject.asset)
            # An index takes as long as its vectors are many; who reads a table is waited for no longer than ever.
            connection.execute(f"SET LOCAL lock_timeout = {int(postgres.write_timeout_s * 1000)}".encode())
            connection.execute("SET LOCAL statement_timeout = 0")
            for asset, version in move.builder.versions(move.rewritten, connection).items():
                if built.versions[asset] != version:
                    return False
            # First, since indexes are made as the alias says.
            _move_alias(connection, move, found, to_follow)
            for subject in (each for each in subjects if each in built.vectors):
                # Going back takes no embedding; what was served before that is nobody's.
                forget(connection, subject)
                keep(connection, subject)
                contract = contract_of(move.new, subject)
                if _of_another_length(postgres_table.last_contract(connection, subject.asset), contract):
                    # A column has vectors of one length: the table is made anew, and its rows are those staged.
                    connection.execute(f"DROP TABLE {quote_identifier(subject.table)}".encode())
                postgres_table.write(connection, contract, built.vectors[subject])
                renew(connection, subject)
            contracts = [contract_of(move.new, subject) for subject in subjects if move.index]
            # From the moment in which a former index goes nobody can read its table: first all are made.
            gone = [(contract, make_vector_indexes(connection, contract)) for contract in contracts]
            for contract, names in gone:
                _drop(connection, contract, names)
    return True


def _drop(connection: "psycopg.Connection", contract: Contract, names: list[str]) -> None:
    import psycopg

    from ml_assets.stores.postgres_table.vector_indexes import drop_indexes

    try:
        drop_indexes(connection, contract, names)
    except psycopg.errors.LockNotAvailable as fault:
        raise WriteBusy(
            f"{contract.asset}: somebody has been reading it in one transaction for longer than a write may take, so its "
            "former index cannot go: end that transaction (pg_stat_activity names it), or wait for the backup that it "
            "is of, and run this again. Nothing was moved."
        ) from fault


def _move_alias(
    connection: "psycopg.Connection", move: _Move, found: Judged, to_follow: Sequence[str]
) -> None:
    old = as_settings(move.old.passages, move.old.index)
    evidence = {
        **found.decision.as_json(),
        "recall": {**found.recall.as_json(), "of": found.recall_of} if found.recall else None,
        "former": {"model_name": move.old.embedder.name, **old},
    }
    row = {
        "model_name": move.new.embedder.name,
        "settings": orjson.dumps(
            {**_of_model(move.new.settings), **as_settings(move.new.passages, move.new.index)}
        ).decode(),
        "moved_from": move.old.embedder.name,
        "evidence": orjson.dumps(evidence).decode(),
        "to_follow": list(to_follow),
    }
    connection.execute(read_sql("postgres/search_model/move.sql"), row)


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


def _made_indexes(move: _Move, subjects: Sequence[Subject]) -> list[str]:
    """The indexes elsewhere that are made of the rows of some subjects; those that nobody has made yet are left out."""
    from ml_assets.stores.registry import stores

    contracts, parents = tables(move.new.settings), {each.asset for each in subjects}
    held = {store.prefix: store for store in stores(move.resources)}
    return [
        index
        for index, parent in INDEXED.items()
        if parent in parents
        and index in contracts  # of a store that is configured
        and held[contracts[index].store].last_contract(index) is not None
    ]


def _to_be_followed(move: _Move, behind: Sequence[str]) -> list[str]:
    """What has to follow the move: the passages in the lake first, since the graph goes on from there."""
    chunks = [CHUNKS] if DOCUMENTS in move.rewritten else []
    return list(dict.fromkeys([*chunks, *behind, *_made_indexes(move, move.rewritten)]))


def _to_follow(postgres: "PostgresResource") -> list[str]:
    with postgres.connect() as connection:
        row = connection.execute(read_sql("postgres/search_model/to_follow.sql")).fetchone()
    return list(row[0] or ()) if row else []


def _behind(move: _Move) -> list[str]:
    """What does not follow the alias as it is; noted, so that it is known after a kill."""
    if not move.named:
        return []
    postgres: PostgresResource = move.resources["postgres"]
    with postgres.connect() as connection:
        noted, indexes_follow = connection.execute(
            read_sql("postgres/search_model/to_follow.sql")
        ).fetchone() or ([], True)
    # In a row of before it was noted which: all of them.
    found = list(noted or ()) if noted is not None or indexes_follow else _made_indexes(move, move.subjects)
    if CHUNKS not in found and _cut_otherwise(move):
        found = [CHUNKS, *found]
    if found != noted:
        with postgres.connect(write=True) as connection:
            connection.execute(read_sql("postgres/search_model/note_to_follow.sql"), {"assets": found})
    return found


def _cut_otherwise(move: _Move) -> bool:
    """Whether the passages in the lake were cut for something else than what is served.

    A run of the graph that had begun before the alias moved may have written them after it.
    """
    from ml_assets.stores.duckdb import DuckLakeStore
    from ml_assets.tables.validation import WHOLE

    lake = DuckLakeStore(move.resources["lake"], move.resources["postgres"])
    if DOCUMENTS not in move.subjects or lake.last_contract(CHUNKS) is None:
        return False
    ours = cut_for(move.old.embedder, move.old.passages)
    batches = lake.read(tables(move.old.settings)[CHUNKS], ["cut_for"], WHOLE)
    told = {value for batch in batches for value in batch["cut_for"].unique().to_pylist()}
    return not told <= {ours}


def _follow(move: _Move, assets: Sequence[str], built: Built | None = None) -> list[str]:
    """Have the passages in the lake and the indexes elsewhere follow the alias, each of which is noted once it has.

    Returns:
        Those that do. One whose store is not configured just now stays noted, and follows once it is.
    """
    postgres: PostgresResource = move.resources["postgres"]
    contracts = tables(move.new.settings)
    followed = [asset for asset in assets if asset in contracts]
    for asset in followed:
        move.progress(f"{asset} follows")
        if asset == CHUNKS:
            _follow_with_passages(move, contracts[asset], built)
        else:
            _follow_with_index(move, contracts[asset], contracts[INDEXED[asset]])
        with postgres.connect(write=True) as connection:
            connection.execute(read_sql("postgres/search_model/followed.sql"), {"asset": asset})
    return followed


def _follow_with_passages(move: _Move, contract: Contract, built: Built | None) -> None:
    from ml_assets.stores.duckdb import DuckLakeStore

    lake = DuckLakeStore(move.resources["lake"], move.resources["postgres"])
    chunks = built.chunks if built else None
    cut_from = built.versions[RAW] if built and chunks else None
    while True:
        documents = move.builder.documents()
        with ExitStack() as until_then:
            if chunks is None or cut_from != documents:
                chunks = until_then.enter_context(move.builder.cut())
            with pause.writing(move.new.settings.home):
                lake.write(contract, chunks)
        if move.builder.documents() == documents:
            return
        # The graph may have cut the newer ones in the meantime: these passages would be without them for good.
        chunks = None


def _follow_with_index(move: _Move, contract: Contract, upstream: Contract) -> None:
    from ml_assets.stores.registry import stores
    from ml_assets.stores.vectors import VectorStore
    from ml_assets.tables.staging import stage
    from ml_assets.tables.validation import WHOLE

    held = {store.prefix: store for store in stores(move.resources)}
    store, source = held[contract.store], held[upstream.store]
    while True:
        state = source.ledger_state(upstream)
        rows = source.read(upstream, contract.names, WHOLE)
        with stage(rows, contract, store.limits) as staged, pause.writing(move.new.settings.home):
            if isinstance(store, VectorStore) and _of_another_length(
                store.last_contract(contract.asset), contract
            ):
                # Whoever is killed from here on has it noted that the index has to follow.
                store.forget(contract)
            store.write(contract, staged)
        if source.ledger_state(upstream) == state:
            return
        # The graph may have carried the newer rows on in the meantime.
