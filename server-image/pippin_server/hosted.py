"""A request on its way through an engine's own OpenAI application, and its answer made ours.

Checked before: slot, body, fields, model's name. Mended after: the first token comes before the
status line, errors have our envelope, every piece has the request's id, and `[DONE]` is never said
after an error. Whole answers and events are changed at their first byte only, unparsed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import orjson
import structlog

from pippin_edge import errors, sse
from pippin_edge.asgi import Message, Receive, Scope, Send, header, state
from pippin_edge.clock import Clock
from pippin_edge.errors import ApiError

from .answering import Kitchen, RunByServer, body, start
from .caller import Caller
from .engines.base import Host
from .resilience.redact import redact

log = structlog.get_logger("pippin.server")

_RETRY = 2
#: An error's body is not read beyond this.
_MAX_ERROR = 64 * 1024
_EVENT = b'data: {"'
_ERROR = b'data: {"error"'
_USAGE = b'"usage":{'


@dataclass(frozen=True, slots=True)
class Errand:
    """One request, checked. `body` is passed on as it came."""

    path: str
    body: bytes
    request_id: str


class HostedAnswer(RunByServer):
    """Made by the engine's application."""

    def __init__(self, kitchen: Kitchen, host: Host, errand: Errand) -> None:
        super().__init__(kitchen)
        self.host = host
        self.errand = errand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kitchen = self.kitchen
        began: float = state(scope).get("began", kitchen.clock.monotonic())
        async with Caller(scope) as caller, kitchen.place(scope):
            inbox = _Inbox(self.errand.body)
            caller.hand_over(inbox.leave)
            passage = _Passage(self.errand.request_id, caller, send, kitchen.clock)
            line = state(scope).setdefault("log", {})
            try:
                await self.host.app(self._scope(scope), inbox, passage)
            except Exception:
                # The application has answered it as far as it could, and the answer is mended here.
                log.exception("answer.failed", request_id=self.errand.request_id)
            finally:
                line.update(passage.usage)
                if passage.first_at:
                    line["ttft_ms"] = round((passage.first_at - began) * 1000, 2)
            if inbox.abandoned:
                raise errors.ClientGone
            await passage.end(alive=self.host.activity().alive)

    def _scope(self, scope: Scope) -> Scope:
        """What the application may know of the request: nothing of the client's headers."""
        errand = self.errand
        return {
            **{key: scope[key] for key in ("type", "asgi", "http_version", "scheme", "client")},
            "server": scope.get("server"),
            "method": "POST",
            "path": errand.path,
            "raw_path": errand.path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(errand.body)),
                (b"x-request-id", errand.request_id.encode()),
            ],
            "state": {},
        }


class _Inbox:
    """Gives the body once, and then waits for the client to leave, which is how the application
    wants to hear of it: cancelled, it would leave its engine at work."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._gone = asyncio.Event()

    @property
    def abandoned(self) -> bool:
        return self._gone.is_set()

    def leave(self) -> None:
        self._gone.set()

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}


class _Passage:
    """The application's way out. Nothing is sent before there is something to say."""

    def __init__(self, request_id: str, caller: Caller, send: Send, clock: Clock) -> None:
        self.usage: dict[str, int] = {}
        self.first_at = 0.0
        self._id = b'{"request_id":"%s",' % request_id.encode()
        self._opening = b"data: " + self._id + b'"'
        self._request_id = request_id
        self._caller = caller
        self._send = send
        self._clock = clock
        self._status = 0
        self._streams = False
        self._held = b""
        self._begun = self._done = False
        self._error: ApiError | None = None

    def __call__(self, message: Message) -> Awaitable[None]:
        if not self._begun or self._done or self._error is not None:
            return self._take(message)
        chunk: bytes = message.get("body", b"")
        tells = _USAGE in chunk or chunk.startswith(_ERROR) or chunk.endswith(sse.DONE)
        if tells or not message.get("more_body", False):
            return self._take(message)
        message["body"] = chunk.replace(_EVENT, self._opening)
        return self._send(message)

    async def _take(self, message: Message) -> None:
        """What is more than one event of many."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            kind = header(message.get("headers", ()), b"content-type") or b""
            self._streams = self._status < 400 and kind.startswith(b"text/event-stream")
        elif self._done or self._error is not None:
            return
        elif self._streams:
            await self._event(message.get("body", b""), more=message.get("more_body", False))
        else:
            if len(self._held) < _MAX_ERROR or self._status < 400:
                self._held += message.get("body", b"")
            if not message.get("more_body", False):
                await self._whole()

    async def end(self, *, alive: bool) -> None:
        """Once the application has returned. Raises what is still to be told."""
        error = self._error
        if error is None and not self._done:
            error = errors.Internal("the engine gave no answer: try again", code="engine_failed")
        if error is None:
            return
        if not alive:
            error = errors.NotReady("the engine has ended: try again", retry_after=_RETRY)
        if not self._begun:
            raise error
        log.warning("answer.broken", request_id=self._request_id, code=error.code)
        self._caller.answered()
        event = sse.event(orjson.dumps(errors.payload(error, self._request_id)))
        await self._send(body(event, more=False))

    async def _whole(self) -> None:
        if self._status >= 400:
            self._error = translated(self._status, self._held)
            return
        self._note_usage(self._held)
        content = self._id + self._held[1:]
        self._done = True
        self._caller.answered()
        await self._send(start(b"application/json", len(content)))
        await self._send(body(content, more=False))

    async def _event(self, chunk: bytes, *, more: bool) -> None:
        if chunk.startswith(_ERROR):
            self._error = translated(0, chunk.removeprefix(b"data: ").strip())
            return
        if not self._begun and chunk:
            self._begun = True
            self.first_at = self._clock.monotonic()
            await self._send(start(sse.CONTENT_TYPE))
        if _USAGE in chunk:
            self._note_usage(chunk.removeprefix(b"data: "))
        if chunk.endswith(sse.DONE):
            self._caller.answered()
        self._done = not more
        await self._send(body(chunk.replace(_EVENT, self._opening), more=more))

    def _note_usage(self, text: bytes) -> None:
        """For the line in the access log; an answer without it is an answer all the same."""
        try:
            told = orjson.loads(text)["usage"]
            self.usage = {k: told[k] for k in ("prompt_tokens", "completion_tokens") if k in told}
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self.usage = {}


def translated(status: int, content: bytes) -> ApiError:
    """The application's error in our envelope: its words where the client is at fault, ours where
    the engine is. `status` 0: as the body says."""
    try:
        told = orjson.loads(content)["error"]
        words, param = redact(str(told["message"])), told.get("param")
        status = status or int(told.get("code") or 500)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        words, param = "the engine refused this request", None
    if not isinstance(param, str):
        param = None
    match status:
        case 404:
            return errors.ModelNotFound(words, param=param or "model")
        case 429 | 503:
            return errors.Overloaded("the engine takes no more: try again", retry_after=_RETRY)
        case 501:
            return errors.BadRequest(words, param=param, code="unsupported_parameter")
        case _ if 400 <= status < 500:
            too_long = "context length" in words or "max_model_len" in words
            code = "context_length_exceeded" if too_long else "invalid_value"
            return errors.BadRequest(
                words, param=(param or "").removeprefix("body.") or None, code=code
            )
    return errors.Internal("the engine failed on this request: try again", code="engine_failed")
