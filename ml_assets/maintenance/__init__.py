"""Maintenance: what keeps the stores small without anybody noticing.

One module a store, each with `size` and `tidy`; `tidy` yields a sentence for each thing that it did. Run by
the asset `quality/maintenance` every night, and safe at any time, from any number of processes: each step
takes the locks that the IO managers take, and may be killed and done again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_assets.maintenance.base import Terms, Upkeep

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Keeper:
    """How one store is kept small.

    Args:
        store: its name.
        size: bytes that it takes; None where that cannot be asked.
        tidy: does it, and yields what it did.
    """

    store: str
    size: Callable[[], int | None]
    tidy: Callable[[], Iterable[str]]


def maintain(resources: Mapping[str, Any], terms: Terms) -> list[Upkeep]:
    """Keep every store small. One that is down does not keep the others from it; its fault is told.

    Args:
        resources: as `build.store_resources` gives them.
        terms: how long things are kept.
    """
    return [keep(keeper) for keeper in keepers(resources, terms)]


def keep(keeper: Keeper) -> Upkeep:
    """Keep one store small; whatever goes wrong is part of the answer."""
    from ml_assets.lib.faults import one_sentence

    before: int | None = None
    done: list[str] = []
    try:
        before = keeper.size()
        done += keeper.tidy()
        return Upkeep(keeper.store, before, keeper.size(), tuple(done))
    except Exception as fault:  # noqa: BLE001 - told to whoever reads the report; the other stores go on
        return Upkeep(keeper.store, before, None, tuple(done), one_sentence(fault))


def keepers(resources: Mapping[str, Any], terms: Terms) -> list[Keeper]:
    """How each store is kept small, in the order in which it is done.

    The lake comes before its catalog, so that what it has freed there is vacuumed at once.
    """
    from ml_assets.maintenance import chroma, clickhouse, duckdb, leftovers, postgres, redis, sqlite

    lake, database = resources["lake"], resources["postgres"]
    engine, vectors = resources["clickhouse"], resources["chroma"]
    file, cache = resources["sqlite"], resources["redis"]

    @contextmanager
    def catalog() -> "Iterator[psycopg.Connection]":
        with database.model_copy(update={"url": lake.resolved_catalog_url()}).statements() as connection:
            yield connection

    def of_database(opened: Callable[[], Any], store: str) -> Keeper:
        def size() -> int:
            with opened() as connection:
                return postgres.size(connection)

        def tidy() -> Iterator[str]:
            with opened() as connection:
                yield from postgres.tidy(connection, terms)

        return Keeper(store, size, tidy)

    return [
        Keeper("duckdb", lambda: duckdb.size(lake), lambda: duckdb.tidy(lake, database, terms)),
        of_database(catalog, "duckdb catalog"),
        Keeper("chroma", lambda: chroma.size(vectors), lambda: chroma.tidy(vectors, database, terms)),
        of_database(database.statements, "postgres"),
        Keeper("clickhouse", lambda: clickhouse.size(engine), lambda: clickhouse.tidy(engine, terms)),
        Keeper("sqlite", lambda: sqlite.size(file), lambda: sqlite.tidy(file, terms)),
        Keeper("redis", lambda: redis.size(cache), lambda: redis.tidy(cache, database, terms)),
        Keeper(
            "temporary files", lambda: leftovers.size(lake.home), lambda: leftovers.tidy(lake.home, terms)
        ),
    ]
