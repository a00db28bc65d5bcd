"""Embeddings from a server that speaks OpenAI's protocol, as vLLM, TEI, llama.cpp and LiteLLM do as well, over HTTP."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.embedders.answers import ServerEmbedder, unit_vectors
from ml_assets.errors import EmbedderError
from ml_assets.settings import redact_url

if TYPE_CHECKING:
    import httpx
    import numpy as np
    from tenacity import RetryCallState

ATTEMPTS = 5
TIMEOUT_S = 60.0
LONGEST_WAIT_S = 60.0
"""Of a pause between two attempts, even if the server asks for a longer one."""


class OpenAIEmbedder(ServerEmbedder):
    """A model of a server with OpenAI's `/embeddings`. See `Embedder` for what it promises.

    Args:
        url: what `/embeddings` stands below, such as `https://api.openai.com/v1`.
        model: its name there.
        dimension: length of its vectors, checked on every answer.
        max_tokens: of a text that the model reads.
        api_key: sent as a bearer token.
    """

    def __init__(
        self,
        url: str,
        model: str,
        dimension: int,
        max_tokens: int,
        api_key: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(dimension)
        self._url = url.rstrip("/")
        self._model = model
        self._max_tokens = max_tokens
        self._api_key = api_key
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """Name on the server."""
        return f"openai/{self._model}"

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads, as the settings have it."""
        return self._max_tokens

    @property
    def _where(self) -> str:
        return redact_url(self._url)

    def _vectors(self, batch: list[str]) -> "np.ndarray":
        who = f"The model {self._model!r} at {self._where}"
        answer = self._post({"model": self._model, "input": batch, "encoding_format": "float"})
        data = answer.get("data") if isinstance(answer, dict) else None
        by_index = {
            each["index"]: each.get("embedding")
            for each in (data if isinstance(data, list) else ())
            if isinstance(each, dict) and isinstance(each.get("index"), int)
        }
        vectors = [by_index[n] for n in range(len(batch)) if n in by_index]
        return unit_vectors(vectors, len(batch), self._dimension, who, "ML_ASSETS_OPENAI_DIMENSION")

    def _post(self, body: dict[str, Any]) -> Any:
        import httpx
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        retrying = Retrying(
            # Faults of the connection, and a server that is busy; any other answer would be the same the next time.
            retry=retry_if_exception_type(
                (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError, _Busy)
            ),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_pause,
            reraise=True,
        )
        try:
            return retrying(self._answer, body)
        except _Busy as fault:
            raise EmbedderError(
                f"The server at {self._where} was asked {ATTEMPTS} times and answered with status {fault.status}: wait "
                "until it is less busy, and go on; what was embedded is kept."
            ) from fault
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            raise EmbedderError(
                f"The server at {self._where} does not answer ({type(fault).__name__}): start it, set "
                "ML_ASSETS_OPENAI_URL, or set ML_ASSETS_EMBEDDER=minilm."
            ) from fault
        except ValueError as fault:
            raise EmbedderError(f"The server at {self._where} answered with what is no JSON.") from fault

    def _answer(self, body: dict[str, Any]) -> Any:
        answer = self._client.post(f"{self._url}/embeddings", json=body)
        status = answer.status_code
        if status == 429 or status >= 500:
            raise _Busy(status, _seconds(answer.headers.get("Retry-After")))
        if status in (401, 403):
            raise EmbedderError(
                f"The server at {self._where} refused the key with status {status}: set ML_ASSETS_OPENAI_API_KEY to one "
                "that may embed."
            )
        if status == 404:
            raise EmbedderError(
                f"The server at {self._where} has no model {self._model!r}, or no /embeddings: set "
                "ML_ASSETS_OPENAI_MODEL and ML_ASSETS_OPENAI_URL (which often ends in /v1)."
            )
        if answer.is_error:
            told = answer.text[:200]
            if self._api_key:
                told = told.replace(self._api_key, "***")
            raise EmbedderError(
                f"The server at {self._where} refused the texts with status {status}: {told} (if a text is too long, set "
                "ML_ASSETS_OPENAI_MAX_TOKENS to what the model reads)."
            )
        return answer.json()

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return httpx.Client(timeout=self._timeout_s, headers=headers)


class _Busy(Exception):
    """The server asks to try again, after so many seconds if it says when."""

    def __init__(self, status: int, after_s: float | None) -> None:
        super().__init__(status)
        self.status, self.after_s = status, after_s


def _seconds(header: str | None) -> float | None:
    """What `Retry-After` says: seconds, or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # neither: as if nothing was said
        return None


def _pause(state: "RetryCallState") -> float:
    from tenacity import wait_random_exponential

    fault = state.outcome.exception() if state.outcome else None
    if isinstance(fault, _Busy) and fault.after_s is not None:
        return min(fault.after_s, LONGEST_WAIT_S)
    return wait_random_exponential(multiplier=0.2, max=8)(state)
