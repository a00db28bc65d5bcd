"""The embedder as a Dagster resource."""

from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from ml_assets.embedders import Embedder, create, make_embedder
from ml_assets.resources.base import plain
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import read_settings
from ml_assets.sql_files import read_sql


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
        if alias is None or alias[0] == self._embedder.name:
            return self._embedder
        name, settings = alias
        if name not in self._served:
            self._served[name] = make_embedder(read_settings(home=Path(self.home), **settings))
        return self._served[name]

    def _alias(self) -> tuple[str, dict] | None:
        """Name of the model that is served, and the settings that make it; None if the settings decide."""
        if self._postgres is None:
            self._postgres = PostgresResource(home=self.home, url=self.postgres_url)
        with self._postgres.connect() as connection:
            if connection.execute("SELECT to_regclass('search_model')").fetchone() == (None,):
                return None
            row = connection.execute(read_sql("postgres/search_model/served.sql")).fetchone()
        return None if row is None else (row[0], row[1])
