"""The embedder as a Dagster resource."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from ml_assets.embedders import Embedder, create, make_embedder
from ml_assets.lib.search_setup import Passages, VectorIndex, cut_for, index_of, passages_of
from ml_assets.resources.base import plain
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import read_settings
from ml_assets.sql_files import read_sql


@dataclass(frozen=True)
class Served:
    """What searches are served by.

    Args:
        embedder: the model.
        passages: how documents are cut for it.
        index: how its vectors are indexed.
        settings: that the alias keeps; none if nothing was ever switched.
    """

    embedder: Embedder
    passages: Passages
    index: VectorIndex
    settings: dict[str, Any]

    @property
    def cut_for(self) -> str:
        """What documents are cut for, as the passages tell it."""
        return cut_for(self.embedder, self.passages)


class EmbedderResource(dg.ConfigurableResource):
    """Hands the embedder to whoever embeds; a model is loaded at its first use, once a process.

    It is that of the alias, once another model has been switched to (operations/search_switch.py), and that of the
    settings before that.
    """

    home: str
    kind: str = "minilm"
    url: str = ""
    model: str = ""
    dimension: int = 0
    max_tokens: int = 0
    api_key: str = ""
    follows_alias: bool = False
    postgres_url: str = ""

    _embedder: Embedder | None = PrivateAttr(default=None)
    _served: dict[str, Embedder] = PrivateAttr(default_factory=dict)
    _postgres: PostgresResource | None = PrivateAttr(default=None)

    def get(self) -> Embedder:
        """The embedder; `EmbedderError` if there is none of that kind."""
        return self.served().embedder

    def served(self) -> Served:
        """The embedder, and how documents are cut for it and its vectors indexed; read at once.

        Raises:
            EmbedderError: there is no embedder of that kind.
        """
        if self._embedder is None:
            # The command line uses it without Dagster, which resolves names of variables.
            self._embedder = create(
                self.kind,
                Path(self.home),
                plain(self.url),
                self.model,
                self.dimension,
                self.max_tokens,
                plain(self.api_key),
            )
        alias = self._alias() if self.follows_alias else None
        if alias is None:
            return Served(self._embedder, Passages(), VectorIndex(), {})
        name, settings = alias
        embedder = self._embedder
        if name != embedder.name:
            if name not in self._served:
                given = of_model(settings)
                self._served[name] = make_embedder(read_settings(home=Path(self.home), **given))
            embedder = self._served[name]
        return Served(embedder, passages_of(settings), index_of(settings), settings)

    def _alias(self) -> tuple[str, dict] | None:
        """Name of the model that is served, and the settings that make it; None if the settings decide."""
        if self._postgres is None:
            self._postgres = PostgresResource(home=self.home, url=self.postgres_url)
        with self._postgres.connect() as connection:
            if connection.execute("SELECT to_regclass('search_model')").fetchone() == (None,):
                return None
            row = connection.execute(read_sql("postgres/search_model/served.sql")).fetchone()
        return None if row is None else (row[0], row[1])


def of_model(settings: dict[str, Any]) -> dict[str, Any]:
    """Of what the alias keeps, the settings that make the model."""
    return {name: value for name, value in settings.items() if name not in ("passages", "index")}
