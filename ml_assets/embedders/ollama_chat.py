"""Text that a chat model of an Ollama server writes, over HTTP."""

from ml_assets.embedders.ollama import ATTEMPTS, DEFAULT_URL
from ml_assets.errors import EmbedderError
from ml_assets.settings import redact_url

TIMEOUT_S = 120.0


def chat(url: str, model: str, told: str, asked: str, timeout_s: float = TIMEOUT_S) -> str:
    """The model's answer, without white space around it; the same for the same question, as far as the server is.

    Args:
        url: the server; the usual one of this machine if empty.
        model: its name there.
        told: what the model is to do.
        asked: what it is given.
        timeout_s: of one request.

    Raises:
        EmbedderError: the server does not answer, has no such model, or answers without a text.
    """
    import httpx
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    base = (url or DEFAULT_URL).rstrip("/")
    where = redact_url(base)
    messages = [{"role": "system", "content": told}, {"role": "user", "content": asked}]
    body = {
        "model": model,
        "messages": messages,
        "stream": False,
        "options": {"temperature": 0, "seed": 0},
    }
    retrying = Retrying(
        # An answer, even a bad one, would be the same the next time, and a model that is slow stays slow.
        retry=retry_if_exception_type((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        reraise=True,
    )
    try:
        answer = retrying(httpx.post, f"{base}/api/chat", json=body, timeout=timeout_s)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EmbedderError(
            f"Ollama at {where} does not answer ({type(error).__name__}): start it with `ollama serve`, set "
            "ML_ASSETS_OLLAMA_URL, or unset ML_ASSETS_OLLAMA_CHAT_MODEL."
        ) from error
    if answer.status_code == 404:
        raise EmbedderError(f"Ollama at {where} has no such model: run `ollama pull {model}`.")
    if answer.is_error:
        raise EmbedderError(
            f"Ollama at {where} answered with status {answer.status_code}: {answer.text[:200]}"
        )
    try:
        text = answer.json()["message"]["content"].strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        text = ""
    if not text:
        raise EmbedderError(f"Ollama's model {model!r} at {where} answered without a text.")
    return text
