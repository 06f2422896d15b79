"""OpenAI's error table: what a caller may be told, and the one place where its bytes are made.

    ApiError
    ├── BadRequest 400        ├── PayloadTooLarge 413    ├── UpstreamFailed 502
    ├── Unauthenticated 401   ├── UnsupportedMedia 415   ├── Overloaded 503
    ├── ModelNotFound 404     ├── RateLimited 429        ├── NotReady 503
    ├── NotFound 404          ├── HeadersTooLarge 431    └── UpstreamTimeout 504
    ├── MethodNotAllowed 405  ├── Internal 500
    ├── RequestTimeout 408
    └── Conflict 409

A message says what to do. Paths, keys, addresses and traces stay in the log.
"""

from __future__ import annotations

import asyncio
import math

import orjson
import structlog

from .asgi import App, Headers, Receive, Scope, Send, state

log = structlog.get_logger("pippin.errors")


class ApiError(Exception):
    """An answer that is an error. `retry_after` is in seconds and rounded up on the wire."""

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        code: str | None = None,
        extra_headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.extra_headers: Headers = extra_headers or []
        if code is not None:
            self.code = code


class BadRequest(ApiError):
    status, type, code = 400, "invalid_request_error", "invalid_request"


class Unauthenticated(ApiError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class ModelNotFound(ApiError):
    status, type, code = 404, "invalid_request_error", "model_not_found"


class NotFound(ApiError):
    status, type, code = 404, "invalid_request_error", "not_found"


class MethodNotAllowed(ApiError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class Conflict(ApiError):
    status, type, code = 409, "invalid_request_error", "conflict"


class RequestTimeout(ApiError):
    status, type, code = 408, "invalid_request_error", "request_timeout"


class PayloadTooLarge(ApiError):
    status, type, code = 413, "invalid_request_error", "payload_too_large"


class UnsupportedMedia(ApiError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class RateLimited(ApiError):
    status, type, code = 429, "rate_limit_error", "rate_limited"


class HeadersTooLarge(ApiError):
    status, type, code = 431, "invalid_request_error", "headers_too_large"


class Internal(ApiError):
    status, type, code = 500, "server_error", "internal_error"


class UpstreamFailed(ApiError):
    status, type, code = 502, "server_error", "upstream_error"


class Overloaded(ApiError):
    status, type, code = 503, "server_error", "overloaded"


class NotReady(ApiError):
    status, type, code = 503, "server_error", "not_ready"


class UpstreamTimeout(ApiError):
    status, type, code = 504, "server_error", "upstream_timeout"


class ClientGone(Exception):
    """The caller left before the answer began; there is nobody to answer."""


def payload(error: ApiError, request_id: str = "") -> dict[str, object]:
    """The envelope as an object; also the payload of a stream's last event."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        },
        "request_id": request_id,
    }


def body(error: ApiError, request_id: str = "") -> bytes:
    """The envelope as bytes."""
    return orjson.dumps(payload(error, request_id))


def headers(error: ApiError) -> Headers:
    """What goes with the status: how to log in, when to come back."""
    found = list(error.extra_headers)
    if error.status == 401:
        found.append((b"www-authenticate", b'Bearer realm="pippin"'))
    if error.retry_after is not None:
        found.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    return found


async def send_error(send: Send, error: ApiError, request_id: str = "") -> None:
    """The whole answer."""
    content = body(error, request_id)
    start = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        *headers(error),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": start})
    await send({"type": "http.response.body", "body": content})


class ErrorEnvelope:
    """Below RequestId: turns what is raised into the envelope, while the answer has not begun.

    After that the connection is cut by raising on: a cut is what tells the client that it did
    not get everything. Bugs are a 500 whose text is only in the log.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answer = scope["state"]["answer"]
        try:
            await self.app(scope, receive, send)
        except ClientGone:
            return
        except asyncio.CancelledError:  # the time to drain is over
            if answer.status is None:
                error = NotReady("this server is going away: try again", retry_after=1)
                await self._answer(error, scope, send)
            raise
        except ApiError as error:
            if answer.status is not None:
                raise
            await self._answer(error, scope, send)
        except Exception:
            if answer.status is not None:
                raise
            log.exception("request.failed", request_id=state(scope).get("request_id", ""))
            await self._answer(
                Internal("something went wrong here; try again, and report the request id"),
                scope,
                send,
            )

    @staticmethod
    async def _answer(error: ApiError, scope: Scope, send: Send) -> None:
        bound = state(scope)
        bound.setdefault("log", {})["error"] = error.code
        bound["said"] = error.message
        await send_error(send, error, bound.get("request_id", ""))
