"""The embedder as a Dagster resource."""

from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from ml_assets.embedders import Embedder, create


class EmbedderResource(dg.ConfigurableResource):
    """Hands the chosen embedder to an asset; the model is loaded at its first use, once a process."""

    home: str
    kind: str = "minilm"
    ollama_url: str = ""
    ollama_model: str = ""
    ollama_dimension: int = 0

    _embedder: Embedder | None = PrivateAttr(default=None)

    def get(self) -> Embedder:
        """The embedder; `EmbedderError` if there is none of that kind."""
        if self._embedder is None:
            self._embedder = create(
                self.kind, Path(self.home), self.ollama_url, self.ollama_model, self.ollama_dimension
            )
        return self._embedder
