"""A cross-encoder, which reads question and text together, over HTTP: as TEI, Jina and Cohere offer it."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.errors import EmbedderError
from ml_assets.settings import Settings, redact_url

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 3
TIMEOUT_S = 30.0
BATCH = 32
"""Texts of one request: as many as TEI takes unless told otherwise."""


def make_reranker(settings: Settings) -> "Reranker | None":
    """The cross-encoder that the settings name; None if they name none."""
    if settings.rerank_url is None:
        return None
    return Reranker(settings.rerank_url, settings.rerank_model, settings.rerank_api_key)


class Reranker:
    """A server that says how well texts answer a question.

    Args:
        url: that requests are sent to, such as `http://127.0.0.1:8080/rerank`.
        model: its name there, as servers of many models ask for it; None for TEI, which has one.
        api_key: sent as a bearer token.
    """

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        self._url, self._model, self._api_key = url, model, api_key

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question; the greater, the better.

        Raises:
            EmbedderError: the server does not answer, or not for each text.
        """
        found: list[float] = []
        for start in range(0, len(texts), BATCH):
            found += self._scored(question, list(texts[start : start + BATCH]))
        return found

    def _scored(self, question: str, texts: list[str]) -> list[float]:
        body = (
            {"query": question, "texts": texts, "truncate": True}
            if self._model is None
            else {"model": self._model, "query": question, "documents": texts, "top_n": len(texts)}
        )
        answer = self._post(body)
        listed = answer.get("results") if isinstance(answer, dict) else answer
        scores: dict[Any, float] = {}
        for each in listed if isinstance(listed, list) else ():
            score = each.get("score", each.get("relevance_score")) if isinstance(each, dict) else None
            if isinstance(score, int | float) and math.isfinite(score) and isinstance(each.get("index"), int):
                scores[each["index"]] = float(score)
        if set(scores) != set(range(len(texts))):
            raise EmbedderError(
                f"The cross-encoder at {redact_url(self._url)} was given {len(texts)} texts and scored {len(scores)}: "
                "it has to answer with index and score of each, as TEI and Jina do. Set ML_ASSETS_RERANK_MODEL for "
                "servers of many models, or leave ML_ASSETS_RERANK_URL unset to search without it."
            )
        return [scores[n] for n in range(len(texts))]

    def _post(self, body: dict[str, Any]) -> Any:
        import httpx
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        retrying = Retrying(
            # Faults of the connection, and a server that is busy; any other answer would be the same the next time.
            retry=retry_if_exception_type(
                (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError, _Busy)
            ),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            reraise=True,
        )
        where = redact_url(self._url)
        try:
            return retrying(self._answer, body)
        except (httpx.HTTPError, httpx.InvalidURL, _Busy) as fault:
            raise EmbedderError(
                f"The cross-encoder at {where} does not answer ({type(fault).__name__}): start it, or leave "
                "ML_ASSETS_RERANK_URL unset to search without it."
            ) from fault
        except ValueError as fault:
            raise EmbedderError(f"The cross-encoder at {where} answered with what is no JSON.") from fault

    def _answer(self, body: dict[str, Any]) -> Any:
        answer = self._client.post(self._url, json=body)
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _Busy(answer.status_code)
        if answer.is_error:
            raise EmbedderError(
                f"The cross-encoder at {redact_url(self._url)} refused the texts with status {answer.status_code}: "
                f"{answer.text[:200]}"
            )
        return answer.json()

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return httpx.Client(timeout=TIMEOUT_S, headers=headers)


class _Busy(Exception):
    """The server asks to try again."""
