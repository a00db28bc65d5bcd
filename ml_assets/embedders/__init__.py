"""Texts to vectors: the protocol, and the one place that chooses between its implementations."""

from pathlib import Path

from ml_assets.embedders.base import Embedder
from ml_assets.errors import EmbedderError
from ml_assets.settings import Settings

__all__ = ["Embedder", "EmbedderError", "create", "make_embedder"]


KINDS = ("minilm", "minilm-int8", "ollama", "openai")


def make_embedder(settings: Settings) -> Embedder:
    """The embedder that the settings name; nothing is loaded before its first use."""
    return create(settings.embedder, settings.home, **settings.embedding_server)


def create(
    kind: str,
    home: Path,
    url: str = "",
    model: str = "",
    dimension: int = 0,
    max_tokens: int = 0,
    api_key: str = "",
) -> Embedder:
    """An embedder by kind: `minilm` and `minilm-int8` (local, keep what they make under `home`), `ollama` or `openai`.

    Args:
        url, model, dimension, max_tokens, api_key: of servers: where they are, the model's name there, the length of its
            vectors, the tokens that it reads, and what it asks for; for Ollama there are defaults.
    """
    if kind == "minilm":
        from ml_assets.embedders.minilm import MiniLMEmbedder

        return MiniLMEmbedder(home / "models")
    if kind == "minilm-int8":
        from ml_assets.embedders.minilm_int8 import MiniLMInt8Embedder

        return MiniLMInt8Embedder(home / "models")
    if kind == "ollama":
        from ml_assets.embedders.ollama import DEFAULT_URL, DIMENSION, MAX_TOKENS, MODEL, OllamaEmbedder

        return OllamaEmbedder(
            url or DEFAULT_URL,
            model or MODEL,
            dimension or DIMENSION,
            max_tokens=max_tokens or MAX_TOKENS,
        )
    if kind == "openai":
        from ml_assets.embedders.openai import OpenAIEmbedder

        if not (url and model and dimension and max_tokens):
            raise EmbedderError(
                "an embedder of a server needs its address, a model, the length of its vectors and what it reads: set "
                "ML_ASSETS_OPENAI_URL, ML_ASSETS_OPENAI_MODEL, ML_ASSETS_OPENAI_DIMENSION and "
                "ML_ASSETS_OPENAI_MAX_TOKENS."
            )
        return OpenAIEmbedder(url, model, dimension, max_tokens, api_key)
    raise EmbedderError(
        f"no embedder is called {kind!r}: set ML_ASSETS_EMBEDDER to one of {', '.join(KINDS)}."
    )
