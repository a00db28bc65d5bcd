"""Embeddings from an Ollama server, over HTTP."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.embedders.answers import ServerEmbedder, unit_vectors
from ml_assets.errors import EmbedderError
from ml_assets.settings import MINILM_DIMENSION as DIMENSION
from ml_assets.settings import redact_url

if TYPE_CHECKING:
    import httpx
    import numpy as np

DEFAULT_URL = "http://127.0.0.1:11434"
MODEL = "all-minilm"
MAX_TOKENS = 256
"""What all-minilm reads."""

ATTEMPTS = 3
TIMEOUT_S = 60.0


class OllamaEmbedder(ServerEmbedder):
    """A model of an Ollama server. See `Embedder` for what it promises.

    Args:
        url: the server, such as `http://127.0.0.1:11434`.
        model: its name there.
        dimension: length of its vectors, checked on every answer.
        timeout_s: of one request.
        max_tokens: of a text that the model reads.
    """

    def __init__(
        self,
        url: str,
        model: str = MODEL,
        dimension: int = DIMENSION,
        timeout_s: float = TIMEOUT_S,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        super().__init__(dimension)
        self._url = url.rstrip("/")
        self._model = model
        self._timeout_s = timeout_s
        self._max_tokens = max_tokens

    @property
    def name(self) -> str:
        """Name on the server."""
        return f"ollama/{self._model}"

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads beside its two marks, as the settings have it."""
        return max(1, self._max_tokens - 2)

    def _vectors(self, batch: list[str]) -> "np.ndarray":
        answer = self._post(batch)
        vectors = answer.get("embeddings") if isinstance(answer, dict) else None
        who = f"Ollama's model {self._model!r}"
        return unit_vectors(vectors, len(batch), self._dimension, who, "ML_ASSETS_OLLAMA_DIMENSION")

    def _post(self, batch: list[str]) -> Any:
        import httpx
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            wait_random_exponential,
        )

        # Connection faults only: an answer, even a bad one, would be the same the next time.
        faults = (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.ReadError,
            httpx.RemoteProtocolError,
        )
        retrying = Retrying(
            retry=retry_if_exception_type(faults),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            reraise=True,
        )
        where = redact_url(self._url)
        try:
            answer = retrying(
                self._client.post,
                "/api/embed",
                # Rather an error than a vector of half a text.
                json={"model": self._model, "input": batch, "truncate": False},
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EmbedderError(
                f"Ollama at {where} does not answer ({type(error).__name__}): start it with `ollama serve`, "
                "set ML_ASSETS_OLLAMA_URL, or set ML_ASSETS_EMBEDDER=minilm."
            ) from error
        if answer.status_code == 404:
            raise EmbedderError(f"Ollama at {where} has no such model: run `ollama pull {self._model}`.")
        if answer.is_error:
            raise EmbedderError(
                f"Ollama at {where} refused the texts with status {answer.status_code}: {answer.text[:200]} "
                "(if a text is too long, set ML_ASSETS_OLLAMA_MAX_TOKENS to what the model reads)."
            )
        try:
            return answer.json()
        except ValueError as error:
            raise EmbedderError(f"Ollama at {where} answered with what is no JSON.") from error

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(base_url=self._url, timeout=self._timeout_s)
