"""From a checked request to its bytes: a slot, the engine's tokens, a stream or one answer.

The first token, or the first error, comes before the status line. Trouble after it is one last
event, and `[DONE]` is only said after a complete answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson
import structlog
from starlette.responses import Response

from pippin_contract.wire import USAGE_HEADER
from pippin_edge import errors, sse
from pippin_edge.asgi import Message, Receive, Scope, Send, state
from pippin_edge.clock import Clock
from pippin_edge.tokens import Claims

from .admission import NOBODY, Admission
from .caller import Caller
from .engines.base import (
    Delta,
    EngineError,
    Finish,
    Generator,
    Prompt,
    Sampling,
)
from .fairness import Standing
from .lifecycle import Lifecycle
from .openai.answers import Choice, Chunks, Head, Usage, whole
from .telemetry import Telemetry
from .troubles import RETRY, as_api_error

log = structlog.get_logger("pippin.server")

T = TypeVar("T")

#: Seconds after which someone who came while the model loads may look again.
_LOADING_RETRY = 5
#: What the access line says that counts as a key's share of the server.
_COUNTED = ("prompt_tokens", "completion_tokens")
_USAGE = USAGE_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Kitchen:
    """What every answer is made with."""

    admission: Admission
    lifecycle: Lifecycle
    telemetry: Telemetry
    clock: Clock

    @asynccontextmanager
    async def place(self, scope: Scope) -> AsyncIterator[None]:
        """Among those that are served, when it is the caller's turn. Raises Overloaded."""
        async with self.admission.slot(_standing(state(scope).get("principal"))) as place:
            self.telemetry.queue_wait(place.waited)
            line = state(scope).setdefault("log", {})
            try:
                yield
            finally:
                told = [line[name] for name in _COUNTED if name in line]
                place.tokens = sum(told) if told else None

    def refuse_unless_ready(self) -> None:
        reason = self.lifecycle.not_ready()
        if reason is not None:
            loading = self.lifecycle.stage == "loading"
            raise errors.NotReady(reason, retry_after=_LOADING_RETRY if loading else RETRY)


def _standing(principal: object) -> Standing:
    """Of the gateway's token, or of a key from a file."""
    if isinstance(principal, Claims):
        return Standing(principal.key, principal.batch)
    return Standing(principal) if isinstance(principal, str) else NOBODY


@dataclass(frozen=True, slots=True)
class Order:
    """One request, checked."""

    head: Head
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    stream: bool
    with_usage: bool
    #: Answers to make of each prompt.
    choices: int = 1


class RunByServer(Response):
    """Made by a route, run by the ASGI server: so the slot is held until the last byte is out."""

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen
        self.status_code = 200
        self.background = None
        self.body = b""
        self.raw_headers = []


class Answer(RunByServer):
    """Made of an engine's tokens."""

    def __init__(self, kitchen: Kitchen, engine: Generator, order: Order) -> None:
        super().__init__(kitchen)
        self.engine = engine
        self.order = order

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kitchen = self.kitchen
        began: float = state(scope).get("began", kitchen.clock.monotonic())
        async with (
            Caller(scope) as caller,
            kitchen.place(scope),
            AsyncExitStack() as stack,
        ):
            served = [await stack.enter_async_context(c) for c in self._choices(began)]
            try:
                await _together([choice.start() for choice in served])
                if self.order.stream:
                    await self._stream(served, caller, send)
                else:
                    await self._whole(served, caller, send)
            except EngineError as error:
                raise as_api_error(error, self.order.prompts) from error
            finally:
                _settle(
                    served,
                    self.order.choices,
                    kitchen.telemetry,
                    state(scope).setdefault("log", {}),
                )

    def _choices(self, began: float) -> Iterator[_Served]:
        """One for each answer that is wanted; with a seed each has its own."""
        order = self.order
        for index in range(len(order.prompts) * order.choices):
            number, choice = divmod(index, order.choices)
            sampling = order.sampling
            if choice and sampling.seed is not None:
                sampling = replace(sampling, seed=sampling.seed + choice)
            tokens = self.engine.generate(order.prompts[number], sampling)
            if len(order.prompts) > 1:
                tokens = _numbered(tokens, number)
            yield _Served(self.kitchen, index, tokens, began)

    async def _whole(self, served: list[_Served], caller: Caller, send: Send) -> None:
        scored = self.order.sampling.logprobs is not None
        choices = await _together([choice.whole(scored=scored) for choice in served])
        content = whole(self.order.head, choices, _usage(served, self.order.choices))
        caller.answered()
        await send(start(b"application/json", len(content)))
        await send(body(content, more=False))

    async def _stream(self, served: list[_Served], caller: Caller, send: Send) -> None:
        with_usage = self.order.with_usage
        chunks = [Chunks(self.order.head, c.index, with_usage=with_usage) for c in served]
        await send(start(sse.CONTENT_TYPE))
        pending = b"".join([chunk.role() for chunk in chunks])
        left = len(served)
        try:
            async with aclosing(merged(served)) as arriving:
                async for choice, deltas in arriving:
                    events = chunks[choice.index]
                    pending += b"".join([events.delta(delta) for delta in deltas])
                    if choice.finish is not None:
                        pending += events.finish(choice.finish)
                        left -= 1
                    if pending and left:
                        await send(body(pending, more=True))
                        pending = b""
        except Exception as error:
            last = sse.event(orjson.dumps(self._late(error)))
        else:
            last = chunks[0].usage(_usage(served, self.order.choices)) if with_usage else b""
            last += sse.DONE
        caller.answered()
        await send(body(pending + last, more=False))

    def _late(self, error: Exception) -> dict[str, object]:
        """The payload of the last event; a bug's text is only in the log."""
        request_id = self.order.head.request_id
        if isinstance(error, EngineError):
            told = as_api_error(error, self.order.prompts)
            log.warning("answer.broken", request_id=request_id, code=told.code)
        else:
            log.exception("answer.failed", request_id=request_id)
            told = errors.Internal("something went wrong here; try again, and report the id")
        return errors.payload(told, request_id)


class _Served:
    """One choice as it comes: its deltas, and what is counted of them. A context: left, it frees
    what the engine holds for it."""

    def __init__(
        self,
        kitchen: Kitchen,
        index: int,
        tokens: AsyncGenerator[Sequence[Delta], None],
        began: float,
    ) -> None:
        self.index = index
        self.usage = Usage()
        self.finish: Finish | None = None
        self.first_after: float | None = None
        self._tokens = tokens
        self._telemetry = kitchen.telemetry
        self._now = kitchen.clock.monotonic
        self._began = began
        self._last = 0.0
        self._first: Sequence[Delta] = ()

    async def __aenter__(self) -> _Served:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tokens.aclose()

    async def start(self) -> None:
        """Wait for the first token. Raises what the engine says instead."""
        self._first = await anext(self._tokens)
        self._last = self._now()
        self.first_after = self._last - self._began
        self._telemetry.first_token(self.first_after)
        self.usage.prompt_tokens = self._first[0].prompt_tokens
        self.usage.cached_tokens = self._first[-1].cached_tokens

    async def whole(self, *, scored: bool) -> Choice:
        """All of it."""
        every = [delta async for deltas in self for delta in deltas]
        return Choice(
            "".join([delta.text for delta in every]),
            self.finish or "stop",
            [one for delta in every for one in delta.scores] if scored else None,
            "".join([delta.reasoning for delta in every]),
            [call for delta in every for call in delta.calls],
        )

    async def __aiter__(self) -> AsyncIterator[Sequence[Delta]]:
        self._count(self._first)
        yield self._first
        async for deltas in self._tokens:
            now = self._now()
            self._telemetry.inter_token((now - self._last) / len(deltas))
            self._last = now
            self._count(deltas)
            yield deltas

    def _count(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            self.usage.completion_tokens += delta.tokens
        self.finish = deltas[-1].finish


async def merged(
    served: list[_Served],
) -> AsyncGenerator[tuple[_Served, Sequence[Delta]]]:
    """What comes of all choices, in the order in which it comes."""
    if len(served) == 1:  # nearly always: no task and no queue
        async for deltas in served[0]:
            yield served[0], deltas
        return
    # Bounded: a client that reads slowly holds its choices up, and nothing piles up.
    arrived: asyncio.Queue[tuple[_Served, Sequence[Delta]] | Exception] = asyncio.Queue(len(served))

    async def pump(choice: _Served) -> None:
        try:
            async for deltas in choice:
                await arrived.put((choice, deltas))
        except Exception as error:
            await arrived.put(error)

    pumps = [asyncio.create_task(pump(choice)) for choice in served]
    try:
        left = len(served)
        while left:
            item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            left -= item[1][-1].finish is not None
            yield item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _together(waits: list[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; when one fails, none goes on."""
    if len(waits) == 1:  # nearly always: no task
        return [await waits[0]]
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _usage(served: list[_Served], choices: int) -> Usage:
    """Each prompt counts once, however many `choices` it has."""
    prompts = served[::choices]
    return Usage(
        prompt_tokens=sum(one.usage.prompt_tokens for one in prompts),
        completion_tokens=sum(choice.usage.completion_tokens for choice in served),
        cached_tokens=sum(one.usage.cached_tokens for one in prompts),
    )


async def _numbered(
    tokens: AsyncGenerator[Sequence[Delta], None], number: int
) -> AsyncGenerator[Sequence[Delta], None]:
    """Of one of several prompts: its errors say which."""
    async with aclosing(tokens):
        try:
            async for deltas in tokens:
                yield deltas
        except EngineError as error:
            error.prompt = number
            raise


def _settle(
    served: list[_Served], choices: int, telemetry: Telemetry, line: dict[str, object]
) -> None:
    """Also of an answer that was cut short: the work was done."""
    if not served:
        return
    usage = _usage(served, choices)
    telemetry.prompt_tokens.inc(usage.prompt_tokens)
    telemetry.completion_tokens.inc(usage.completion_tokens)
    line["prompt_tokens"] = usage.prompt_tokens
    line["completion_tokens"] = usage.completion_tokens
    line["cached_tokens"] = usage.cached_tokens
    firsts = [choice.first_after for choice in served if choice.first_after is not None]
    if firsts:
        line["ttft_ms"] = round(min(firsts) * 1000, 2)


def note_usage(scope: Scope, telemetry: Telemetry, read: int, made: int) -> None:
    """Count an answer's tokens, and write them into the line of the request."""
    telemetry.prompt_tokens.inc(read)
    telemetry.completion_tokens.inc(made)
    line = state(scope).setdefault("log", {})
    line["prompt_tokens"], line["completion_tokens"] = read, made


def start(
    kind: bytes, length: int | None = None, *, used: tuple[int, int] | None = None
) -> Message:
    """A good answer's status and headers; without a length it is a stream. `used`: the tokens of
    an answer whose body may not tell them."""
    headers = [(b"content-type", kind)]
    if used is not None:
        headers.append((_USAGE, b"prompt=%d, completion=%d" % used))
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    else:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(content: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}
