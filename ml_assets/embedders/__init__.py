"""Texts to vectors: the protocol, and the one place that chooses between its implementations."""

from pathlib import Path

from ml_assets.embedders.base import Embedder
from ml_assets.errors import EmbedderError
from ml_assets.settings import Settings

__all__ = ["Embedder", "EmbedderError", "create", "make_embedder"]


def make_embedder(settings: Settings) -> Embedder:
    """The embedder that the settings name; nothing is loaded before its first use."""
    return create(
        settings.embedder,
        settings.home,
        settings.ollama_url or "",
        settings.ollama_model,
        settings.ollama_dimension,
    )


def create(
    kind: str, home: Path, ollama_url: str = "", ollama_model: str = "", ollama_dimension: int = 0
) -> Embedder:
    """An embedder by kind: `minilm` (local, keeps its graph under `home`) or `ollama` (a server).

    Args:
        ollama_url, ollama_model, ollama_dimension: the server, the model's name there and the length of its vectors;
            the defaults of `OllamaEmbedder` where they are empty.
    """
    if kind == "minilm":
        from ml_assets.embedders.minilm import MiniLMEmbedder

        return MiniLMEmbedder(home / "models")
    if kind == "ollama":
        from ml_assets.embedders.ollama import DEFAULT_URL, DIMENSION, MODEL, OllamaEmbedder

        return OllamaEmbedder(ollama_url or DEFAULT_URL, ollama_model or MODEL, ollama_dimension or DIMENSION)
    raise EmbedderError(f"no embedder is called {kind!r}: set ML_ASSETS_EMBEDDER to minilm or ollama.")
