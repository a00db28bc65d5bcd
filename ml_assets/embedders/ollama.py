"""Embeddings from an Ollama server, over HTTP."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.errors import EmbedderError
from ml_assets.settings import MINILM_DIMENSION as DIMENSION
from ml_assets.settings import redact_url

if TYPE_CHECKING:
    import httpx
    import numpy as np

DEFAULT_URL = "http://127.0.0.1:11434"
MODEL = "all-minilm"

BATCH = 64
ATTEMPTS = 3
TIMEOUT_S = 60.0

_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


class OllamaEmbedder:
    """A model of an Ollama server. See `Embedder` for what it promises.

    Args:
        url: the server, such as `http://127.0.0.1:11434`.
        model: its name there.
        dimension: length of its vectors, checked on every answer.
        timeout_s: of one request.
    """

    def __init__(
        self,
        url: str,
        model: str = MODEL,
        dimension: int = DIMENSION,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = url.rstrip("/")
        self._model = model
        self._dimension = dimension
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """Name on the server."""
        return f"ollama/{self._model}"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """Unit vectors, float32 of shape (len(texts), dimension)."""
        import numpy as np

        out = np.empty((len(texts), self._dimension), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            out[start : start + len(batch)] = self._vectors(batch)
        return out

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """An estimate: the server tells no token counts. A mark or four letters of a word are one token."""
        return [sum(-(-len(piece) // 4) for piece in _WORD_OR_MARK.findall(text)) for text in texts]

    def _vectors(self, batch: list[str]) -> "np.ndarray":
        import numpy as np

        vectors = np.asarray(self._post(batch).get("embeddings", []), dtype=np.float32)
        if vectors.shape != (len(batch), self._dimension):
            raise EmbedderError(
                f"Ollama's model {self._model!r} gave vectors of shape {vectors.shape} where "
                f"{(len(batch), self._dimension)} was expected: set ML_ASSETS_OLLAMA_DIMENSION to the length of its "
                f"vectors, or use a model of dimension {self._dimension}."
            )
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(np.isfinite(length) & (length > 0)):
            raise EmbedderError(f"Ollama's model {self._model!r} gave a vector without a direction.")
        return vectors / length

    def _post(self, batch: list[str]) -> dict[str, Any]:
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
                json={"model": self._model, "input": batch},
            )
        except httpx.HTTPError as error:
            raise EmbedderError(
                f"Ollama at {where} does not answer ({type(error).__name__}): start it with `ollama serve`, "
                "set ML_ASSETS_OLLAMA_URL, or set ML_ASSETS_EMBEDDER=minilm."
            ) from error
        if answer.status_code == 404:
            raise EmbedderError(f"Ollama at {where} has no such model: run `ollama pull {self._model}`.")
        if answer.is_error:
            raise EmbedderError(
                f"Ollama at {where} refused the texts with status {answer.status_code}: {answer.text[:200]}"
            )
        return answer.json()

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(base_url=self._url, timeout=self._timeout_s)
