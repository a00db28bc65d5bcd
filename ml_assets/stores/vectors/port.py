"""What collections of vectors are to the code that keeps tables in them: one implementation a store.

An entry has an id, a vector, perhaps a document, and metadata: a flat dictionary. It is never changed; see the package.
What belongs here: what every such store can do. What does not: tables, contracts of rows, the manifest.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from ml_assets.contracts import Contract
from ml_assets.errors import DamagedCollection
from ml_assets.lib.faults import one_sentence

BATCH = 2_000
"""Entries of one request that reads, copies or deletes."""


class NoCollectionError(LookupError):
    """There is no collection of this name."""


@dataclass(frozen=True)
class Similar:
    """An entry that was found.

    Args:
        id: of the entry.
        distance: cosine distance, from 0 (the same direction) to 2.
        document: the text.
        metadata: what is known of it.
    """

    id: str
    distance: float
    document: str
    metadata: dict[str, Any]


class Collection(ABC):
    """An open collection.

    Args:
        name: of the collection, as the contract calls the table.
    """

    store: ClassVar[str]
    """The store, as people know it."""

    unit_vectors: ClassVar[bool] = False
    """Whether vectors come back at length 1, whatever length they were written with."""

    added_at_once: ClassVar[int]
    """Entries that are prepared at once."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def identity(self) -> str:
        """What tells the collection from one that had the same name before."""

    @abstractmethod
    def unreadable(self) -> tuple[type[Exception], ...]:
        """By what it says that its index cannot be read."""

    @abstractmethod
    def count(self) -> int:
        """How many entries it lists, live or not."""

    @abstractmethod
    def ids(self, where: Mapping[str, Any] | None = None) -> list[str]:
        """Ids of the entries that it lists, live or not, of all or of those that conditions let through."""

    @abstractmethod
    def get(self, ids: Sequence[str], parts: Sequence[str]) -> dict[str, Any]:
        """Those of some entries that are there, in any order.

        Args:
            parts: of `embeddings`, `documents` and `metadatas`.

        Returns:
            `ids`, and each part, one value an entry.
        """

    @abstractmethod
    def add(self, ids: Sequence[str], embeddings: Any, anew: bool, **parts: Any) -> None:
        """Add entries, in the place of those that have their ids.

        Args:
            anew: whether it is known that none is there.
            parts: `documents` and `metadatas`.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> None:
        """Delete entries."""

    @abstractmethod
    def nearest(
        self,
        vector: Sequence[float],
        top_k: int,
        where: Mapping[str, Any] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Similar]:
        """The entries whose vectors are nearest to the given one, nearest first; live or not.

        Args:
            where: conditions on the metadata; several stand for 'all of them'.
            ids: search only among these entries.
        """

    @abstractmethod
    def neighbours(self, vectors: Sequence[Any], most: int) -> list[list[tuple[str, float]]]:
        """Ids of the entries nearest to each vector, with their distances."""

    def settle(self) -> None:
        """Have what was added kept through a loss of power; called before it is made live."""
        return

    def index(self) -> None:
        """Make an index of what has none; called once it is live."""
        return

    def damaged(self, cause: str) -> DamagedCollection:
        """The error for a collection that does not hold what the manifest names."""
        return damaged(self.store, self.name, cause)

    @contextmanager
    def told_as_damage(self) -> Iterator[None]:
        """An engine's fault while it reads is damage; a full disk keeps it from writing only."""
        try:
            yield
        except self.unreadable() as fault:
            raise self.damaged(one_sentence(fault)) from fault


class Collections(ABC):
    """An open store of collections.

    Args:
        prefix: what the manifest puts before their names.
    """

    store: ClassVar[str]
    """The store, as people know it."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def listed(self, table: str) -> str:
        """The name by which the manifest knows a collection."""
        return f"{self._prefix}{table}"

    @abstractmethod
    def unreadable(self) -> tuple[type[Exception], ...]:
        """By what the store says that a collection or its index cannot be read."""

    @abstractmethod
    def names(self) -> set[str]:
        """Of the collections that are there."""

    @abstractmethod
    def open(self, name: str) -> Collection:
        """A collection by its name.

        Raises:
            NoCollectionError: there is none.
        """

    @abstractmethod
    def ensure(self, contract: Contract) -> Collection:
        """The collection of a contract, made if it is not there.

        Raises:
            ContractViolation: it is there with another distance or dimension.
        """


def damaged(store: str, collection: str, cause: str) -> DamagedCollection:
    """The error for a collection that does not hold what the manifest names."""
    return DamagedCollection(
        f"The collection {collection!r} of {store} is damaged ({cause.rstrip('.')}): run 'ml-assets recover', which "
        "makes it anew of what is left, or materialize the asset again."
    )
