"""An answer on its way from a replica to the client: as it comes, but never a false end.

Events go out whole: if the replica dies inside one, its torn half would hide the error event
that follows. JSON answers go out in one piece when they are small enough to wait for, so that a
replica that dies early is still a clean 502.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import orjson

from pippin_edge import errors, sse
from pippin_edge.asgi import Headers, Send, Sender

from .routing.retry import Failure
from .upstream.client import Exchange
from .upstream.failure import UpstreamFailure

#: Headers of a replica's answer that a client gets.
PASSED = (b"content-type", b"content-encoding", b"cache-control", b"retry-after")
#: A JSON answer up to this size is complete before its status line goes out.
WHOLE_BYTES = 256 * 1024
#: What an answer's tokens are told in lies in so much of its end, which may come in two reads.
USAGE_BYTES = 1024
#: An event longer than this is passed on in pieces.
EVENT_BYTES = 1024 * 1024

_ENDS = (b"\n\n", b"\r\n\r\n")
#: Headers of every stream of events.
EVENT_STREAM: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


def streams(exchange: Exchange) -> bool:
    """Whether the answer is a stream of events."""
    return exchange.headers.get(b"content-type", b"").startswith(b"text/event-stream")


def is_json(exchange: Exchange) -> bool:
    return exchange.headers.get(b"content-type", b"").startswith(b"application/json")


async def whole(
    exchange: Exchange,
    send: Send,
    head: Headers,
    shown: Callable[[bytes], bytes] = lambda part: part,
) -> bytes:
    """Pass on an answer that does not stream; returns its end. Raises UpstreamFailure.

    `shown`: what the client gets of one that is here as a whole.
    """
    part = await exchange.read()
    if not exchange.complete:
        parts, size = [part], len(part)
        while size < WHOLE_BYTES and (part := await exchange.read()):
            parts.append(part)
            size += len(part)
        part = b"".join(parts)
    if exchange.complete:  # and read: what has come is read at once
        part = shown(part)
        head.append((b"content-length", b"%d" % len(part)))
        await _start(exchange, send, head)
        await send({"type": "http.response.body", "body": part})
        return part
    if b"content-length" in exchange.headers:
        head.append((b"content-length", exchange.headers[b"content-length"]))
    await _start(exchange, send, head)
    last = part
    while part:
        await send({"type": "http.response.body", "body": part, "more_body": True})
        part = await exchange.read()
        last = last[-USAGE_BYTES:] + part
    await send({"type": "http.response.body", "body": b""})
    return last


def _start(exchange: Exchange, send: Send, head: Headers) -> Awaitable[None]:
    return send({"type": "http.response.start", "status": exchange.status, "headers": head})


def passed(exchange: Exchange) -> Headers:
    """What the client is told of the answer's headers."""
    found = exchange.headers
    return [(name, found[name]) for name in PASSED if name in found]


class Client(Protocol):
    """The connection that the events go to."""

    #: None while it keeps up.
    writable: asyncio.Event | None


class Events:
    """A stream of events. `begin` before the status line, then `run`."""

    __slots__ = ("_client", "_exchange", "_first", "_last", "_send", "_shown", "_torn")

    def __init__(
        self,
        exchange: Exchange,
        send: Sender,
        shown: Callable[[bytes], bytes],
        client: Client,
    ) -> None:
        """`shown`: what the client gets of some events."""
        self._exchange = exchange
        self._send = send
        self._shown = shown
        self._client = client
        self._torn = b""
        self._first = b""
        self._last = b""

    async def begin(self) -> None:
        """Wait for the first event: until then a failure is a clean answer."""
        while not self._first:
            part = await self._exchange.read()
            if not part:
                raise UpstreamFailure(Failure.CUT, "the stream ended before its first event")
            self._first = self._complete_events(part)

    async def run(self, head: Headers) -> None:
        """Pass all events on; raises UpstreamFailure when the stream breaks off."""
        await _start(self._exchange, self._send, [*head, *EVENT_STREAM])
        self._exchange.tap(self._pass_on)
        part = self._first
        while part:
            self._last = part
            if shown := self._shown(part):
                await self._send({"type": "http.response.body", "body": shown, "more_body": True})
            part = await self._next()
        await self._send({"type": "http.response.body", "body": b""})

    def _pass_on(self) -> bool:
        """Events that have come, while the task waits for them; False: it is wanted."""
        if self._client.writable is not None:
            return False
        part = self._complete_events(self._exchange.take())
        if part:
            self._last = part
            if shown := self._shown(part):
                self._send.part(shown)
        return True

    async def fail(self, error: errors.ApiError, request_id: str) -> None:
        """The last event of a stream that broke off, and the end."""
        event = sse.event(orjson.dumps(errors.payload(error, request_id)))
        await self._send({"type": "http.response.body", "body": event})

    async def _next(self) -> bytes:
        while True:
            part = await self._exchange.read()
            if not part:
                return self._end()
            if events := self._complete_events(part):
                return events

    def _end(self) -> bytes:
        if not (self._exchange.sealed or self._last.rstrip().endswith(b"[DONE]")):
            raise UpstreamFailure(Failure.CUT, "the connection ended before [DONE]")
        torn, self._torn = self._torn, b""
        return torn

    def _complete_events(self, part: bytes) -> bytes:
        if self._torn:
            part = self._torn + part
            self._torn = b""
        if part.endswith(_ENDS) or len(part) > EVENT_BYTES:
            return part
        end = max(part.rfind(end) + len(end) if end in part else 0 for end in _ENDS)
        self._torn = part[end:]
        return part[:end]
