"""What is said to providers outside, and what their answers mean here.

They get nothing of the client but the body: not its headers, not its key, no token of ours. A
client gets nothing of theirs but the answer to what it asked: what they say of our key, of our
quota or of our configuration is not for the client.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from pippin_contract import __version__
from pippin_edge import errors
from pippin_edge.asgi import Headers

from ..catalog.model import External
from ..routing.retry import Failure
from .client import Exchange
from .failure import UpstreamFailure

#: What providers are asked.
PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})
#: An error's body is read up to here, and so many characters of its message are passed on.
_MOST_BYTES, _MOST_WORDS = 64 * 1024, 1000
#: Longest wait that is passed on, in seconds.
_DAY = 86_400.0
#: A provider may be a Pippin, too, and that one's provider; one that leads back here is none.
HOPS_HEADER = b"x-pippin-hops"
_MOST_HOPS = 4
_ABOUT_US = frozenset({401, 402, 403, 407})
#: Cloudflare's and others' ways to say that there is nobody behind them now.
_FULL = frozenset({503, 529})
_UNDERSTOOD = (b"application/json", b"text/event-stream")
_NAME = re.compile(rb'"model":\s*"(?:[^"\\]|\\.)*"')
_WRONG: dict[int, type[errors.ApiError]] = {
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMedia,
}


def head(external: External, path: str, key: str, more: Headers) -> bytes:
    """The request line and headers. `path` as the client asked it: /v1 and what follows. Raises
    errors.BadRequest for what providers are not asked."""
    if path not in PATHS:
        raise errors.BadRequest(
            "this model is a provider's outside, which answers chats, completions and embeddings"
            " only: ask another model",
            param="model",
        )
    login = f"authorization: Bearer {key}\r\n" if key else ""
    made = (
        f"POST {external.place.base}{path.removeprefix('/v1')} HTTP/1.1\r\n"
        f"host: {external.place.authority}\r\n{login}"
        f"content-type: application/json\r\nuser-agent: pippin/{__version__}\r\n"
        "accept-encoding: identity\r\n"
    ).encode()
    return made + b"".join(name + b": " + value + b"\r\n" for name, value in more) + b"\r\n"


def hops(seen: bytes | None) -> bytes:
    """One more than a request has behind it. Raises errors.UpstreamFailed."""
    count = int(seen) if seen and seen.isdigit() and len(seen) < 4 else 0
    if count >= _MOST_HOPS:
        raise errors.UpstreamFailed(
            "the model's provider leads back here: correct spec.engine.external.url",
            code="provider_loop",
        )
    return b"%d" % (count + 1)


async def judge(exchange: Exchange, key: str) -> None:
    """Refuse what is no answer to the client. Raises UpstreamFailure, and ApiError, in our words
    as far as they must be, for what the client asked wrongly."""
    status = exchange.status
    if status < 300 and exchange.headers.get(b"content-type", b"").startswith(_UNDERSTOOD):
        return
    failure = _failure(status)
    if failure is not None:
        raise UpstreamFailure(failure, str(status), retry_after=_retry_after(exchange))
    raise told(status, await _body(exchange), key)


def _failure(status: int) -> Failure | None:
    """None: it is the client's."""
    if status in _ABOUT_US:
        return Failure.REFUSED_KEY
    if status == 404:
        return Failure.UNKNOWN_MODEL
    if status == 429:
        return Failure.PROVIDER_LIMIT
    if status in _FULL:
        return Failure.UNAVAILABLE
    if status >= 500:
        return Failure.SERVER_ERROR
    return Failure.BAD_ANSWER if status < 400 else None


def told(status: int, body: bytes, key: str) -> errors.ApiError:
    """A refusal in whatever envelope, in ours. Should it repeat our key, that goes."""
    found = _said(body)
    words = str(found.get("message") or f"the model's provider refuses this with {status}")
    if key:
        words = words.replace(key, "…")
    param, code = found.get("param"), found.get("code")
    return _WRONG.get(status, errors.BadRequest)(
        words[:_MOST_WORDS],
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else None,
    )


def _said(body: bytes) -> dict[str, Any]:
    """OpenAI's and llama.cpp's `{"error": {…}}`, Ollama's `{"error": "…"}`, vLLM's flat one, and
    FastAPI's `{"detail": "…"}`."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(found, dict):
        return {}
    error = found.get("error", found)
    if isinstance(error, dict):
        return error if "message" in error else {"message": _text(error.get("detail"))}
    return {"message": _text(error)}


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""


async def _body(exchange: Exchange) -> bytes:
    body = b""
    while len(body) < _MOST_BYTES and (part := await exchange.read()):
        body += part
    return body


def _retry_after(exchange: Exchange) -> float | None:
    """Seconds, or a date, as HTTP allows."""
    text = exchange.headers.get(b"retry-after", b"").decode("latin-1").strip()
    try:
        wait = float(text) if text.replace(".", "", 1).isdigit() else _until(text)
    except (TypeError, ValueError):  # a date without its zone is no moment
        return None
    return min(wait, _DAY)


def _until(date: str) -> float:
    return max(0.0, (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds())


def named(part: bytes, served_name: str) -> bytes:
    """An answer or whole events under the name that the model has here. In JSON text a quote inside
    a string is escaped, so `"model":` can only be a field."""
    if b'"model"' not in part:
        return part
    ours = b'"model":' + orjson.dumps(served_name)
    return _NAME.sub(lambda found: ours, part)
