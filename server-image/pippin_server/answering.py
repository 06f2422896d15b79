"""From a checked request to its bytes: a slot, the engine's tokens, a stream or one answer.

The first token, or the first error, comes before the status line. Trouble after it is one last
event, and `[DONE]` is only said after a complete answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import orjson
import structlog
from starlette.responses import Response

from pippin_edge import errors, sse
from pippin_edge.asgi import Receive, Scope, Send, state
from pippin_edge.clock import Clock
from pippin_edge.errors import ApiError

from .admission import Admission
from .caller import Caller
from .engines.base import (
    Delta,
    EngineError,
    EngineFailed,
    EngineStopped,
    Finish,
    Generator,
    OutOfMemory,
    Prompt,
    PromptRefused,
    PromptTooLong,
    Sampling,
)
from .lifecycle import Lifecycle
from .openai.answers import Chunks, Head, Usage, whole
from .telemetry import Telemetry

log = structlog.get_logger("pippin.server")

#: Seconds after which someone who came while the model loads may look again.
_LOADING_RETRY = 5
_RETRY = 2


@dataclass(frozen=True, slots=True)
class Kitchen:
    """What every answer is made with."""

    admission: Admission
    lifecycle: Lifecycle
    telemetry: Telemetry
    clock: Clock

    def refuse_unless_ready(self) -> None:
        reason = self.lifecycle.not_ready()
        if reason is not None:
            loading = self.lifecycle.stage == "loading"
            raise errors.NotReady(reason, retry_after=_LOADING_RETRY if loading else _RETRY)


@dataclass(frozen=True, slots=True)
class Order:
    """One request, checked."""

    head: Head
    prompt: Prompt
    sampling: Sampling
    stream: bool
    with_usage: bool


class Answer(Response):
    """Made by a route, run by the ASGI server: so the slot is held until the last byte is out."""

    def __init__(self, kitchen: Kitchen, engine: Generator, order: Order) -> None:
        self.kitchen = kitchen
        self.engine = engine
        self.order = order
        self.status_code = 200
        self.background = None
        self.body = b""
        self.raw_headers = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kitchen, order = self.kitchen, self.order
        began: float = state(scope).get("began", kitchen.clock.monotonic())
        async with Caller(scope) as caller, kitchen.admission.slot() as waited:
            kitchen.telemetry.queue_wait.observe(waited)
            tokens = self.engine.generate(order.prompt, order.sampling)
            async with aclosing(tokens):
                served = _Served(kitchen, tokens, began)
                try:
                    await served.start()
                    if order.stream:
                        await self._stream(served, caller, send)
                    else:
                        await self._whole(served, caller, send)
                except EngineError as error:
                    raise as_api_error(error, order.prompt) from error
                finally:
                    served.settle(state(scope).setdefault("log", {}))

    async def _whole(self, served: _Served, caller: Caller, send: Send) -> None:
        text = "".join([delta.text async for deltas in served for delta in deltas])
        content = whole(self.order.head, text, served.finish or "stop", served.usage)
        caller.answered()
        await send(_start(b"application/json", len(content)))
        await send({"type": "http.response.body", "body": content})

    async def _stream(self, served: _Served, caller: Caller, send: Send) -> None:
        chunks = Chunks(self.order.head, with_usage=self.order.with_usage)
        await send(_start(sse.CONTENT_TYPE))
        pending = chunks.role()
        try:
            async for deltas in served:
                pending += b"".join([chunks.text(delta.text) for delta in deltas if delta.text])
                if pending and served.finish is None:
                    await send(_body(pending, more=True))
                    pending = b""
        except Exception as error:
            last = sse.event(orjson.dumps(self._late(error)))
        else:
            pending += chunks.finish(served.finish or "stop")
            last = chunks.usage(served.usage) if self.order.with_usage else b""
            last += sse.DONE
        caller.answered()
        await send(_body(pending + last, more=False))

    def _late(self, error: Exception) -> dict[str, object]:
        """The payload of the last event; a bug's text is only in the log."""
        request_id = self.order.head.request_id
        if isinstance(error, EngineError):
            told = as_api_error(error, self.order.prompt)
            log.warning("answer.broken", request_id=request_id, code=told.code)
        else:
            log.exception("answer.failed", request_id=request_id)
            told = errors.Internal("something went wrong here; try again, and report the id")
        return errors.payload(told, request_id)


class _Served:
    """An answer as it comes: its deltas, and what is counted of them."""

    def __init__(
        self,
        kitchen: Kitchen,
        tokens: AsyncGenerator[Sequence[Delta], None],
        began: float,
    ) -> None:
        self.usage = Usage()
        self.finish: Finish | None = None
        self._tokens = tokens
        self._telemetry = kitchen.telemetry
        self._now = kitchen.clock.monotonic
        self._began = began
        self._last = 0.0
        self._first: Sequence[Delta] = ()
        self._first_after: float | None = None

    async def start(self) -> None:
        """Wait for the first token. Raises what the engine says instead."""
        self._first = await anext(self._tokens)
        self._last = self._now()
        self._first_after = self._last - self._began
        self._telemetry.first_token.observe(self._first_after)
        self.usage.prompt_tokens = self._first[0].prompt_tokens

    async def __aiter__(self) -> AsyncIterator[Sequence[Delta]]:
        self._count(self._first)
        yield self._first
        async for deltas in self._tokens:
            now = self._now()
            self._telemetry.inter_token.observe((now - self._last) / len(deltas))
            self._last = now
            self._count(deltas)
            yield deltas

    def _count(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            self.usage.completion_tokens += delta.tokens
        self.finish = deltas[-1].finish

    def settle(self, line: dict[str, object]) -> None:
        """Also of an answer that was cut short: the work was done."""
        self._telemetry.prompt_tokens.inc(self.usage.prompt_tokens)
        self._telemetry.completion_tokens.inc(self.usage.completion_tokens)
        line["prompt_tokens"] = self.usage.prompt_tokens
        line["completion_tokens"] = self.usage.completion_tokens
        if self._first_after is not None:
            line["ttft_ms"] = round(self._first_after * 1000, 2)


def as_api_error(error: EngineError, prompt: Prompt) -> ApiError:
    """The one table from an engine's words to a status."""
    text = str(error)
    match error:
        case PromptTooLong():
            param = "messages" if prompt.messages is not None else "prompt"
            return errors.BadRequest(text, param=param, code="context_length_exceeded")
        case PromptRefused():
            return errors.BadRequest(text, param=error.param)
        case OutOfMemory():
            return errors.Overloaded(text, code="out_of_memory", retry_after=_RETRY)
        case EngineStopped():
            return errors.NotReady(text, retry_after=_RETRY)
        case EngineFailed():
            return errors.Internal(text, code="engine_failed")
    return errors.Internal("the engine failed on this request", code="engine_failed")


def _start(kind: bytes, length: int | None = None) -> dict[str, object]:
    headers = [(b"content-type", kind)]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    else:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _body(content: bytes, *, more: bool) -> dict[str, object]:
    return {"type": "http.response.body", "body": content, "more_body": more}
