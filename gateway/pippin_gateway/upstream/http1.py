"""One HTTP/1.1 connection to a replica: a request out, a head and parts of a body back.

Parsed by httptools (llhttp). Reading stops while parts wait to be taken, so a slow client slows
its own stream down to the replica and nothing piles up here. A stream's parts need not wake the
task that waits for them: see `tap`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from ..routing.retry import Failure
from .failure import UpstreamFailure

#: Bytes of body that may wait before reading stops.
HIGH_WATER = 64 * 1024
#: A body up to this size goes out in one write with its head.
_COPIED = 64 * 1024
MAX_HEADER_BYTES = 64 * 1024


class Connection(asyncio.Protocol):
    """Carries one exchange at a time; `reusable` says whether it may carry another."""

    __slots__ = (
        "_buffered",
        "_error",
        "_header_bytes",
        "_interim",
        "_keep",
        "_loop",
        "_parser",
        "_parts",
        "_paused",
        "_polluted",
        "_transport",
        "_waiter",
        "closed",
        "complete",
        "exchanges",
        "head_seen",
        "headers",
        "idle_since",
        "received",
        "status",
        "tap",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self.closed = False
        self.exchanges = 0
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._parts.clear()
        self._buffered = 0
        self._header_bytes = 0
        self._error: Exception | None = None
        #: Whether the whole body was received (it may still have to be read).
        self.complete = False
        self._interim = False
        self._keep = False
        self._paused = False
        self._polluted = False
        self.head_seen = False
        self.received = False
        self.status = 0
        self.rest()

    # What the client does

    def send(self, head: bytes, body: bytes) -> None:
        """Start an exchange."""
        self._reset()
        self.exchanges += 1
        if self._transport is None or self.closed:
            self._error = UpstreamFailure(Failure.RESET, "closed while idle")
            return
        if len(body) > _COPIED:
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)

    async def head(self) -> int:
        """The status, once all headers are in `headers` (lower-case names)."""
        while not self.head_seen:
            if self._error is not None:
                raise self._error
            await self._news()
        return self.status

    async def read(self) -> bytes:
        """What has come of the body, at least one byte; empty at its end."""
        while not self._parts:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._news()
        return self.take()

    def take(self) -> bytes:
        """What has come of the body, and was not taken."""
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def rest(self) -> None:
        """Let go of the exchange that is over, which knows the connection."""
        #: Called when parts have come for a task that waits for them: whether it took them, so
        #: that the task may wait on. To wake it costs more than to pass an event on.
        self.tap: Callable[[], bool] | None = None
        self.headers: dict[bytes, bytes] = {}

    @property
    def reusable(self) -> bool:
        return (
            self.complete
            and not self.closed
            and not self._polluted
            and not self._parts
            and self._keep
        )

    def close(self) -> None:
        """At once: what is on the way is of no use to anybody."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # What the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received = True
        if self.complete or not self.exchanges:
            self._polluted = True  # bytes that nobody asked for
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._polluted:
                self._fail(Failure.PROTOCOL, str(error))
            self.close()
        except httptools.HttpParserUpgrade:
            self._fail(Failure.PROTOCOL, "switched protocols")
            self.close()
        if self._buffered > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if not (self._parts and self._tapped()):
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self.complete:
            if not self.head_seen:
                self._fail(Failure.RESET, str(exc or "closed before the answer"))
            elif exc is None and self._ends_with_connection():
                self.complete = True
            else:
                self._fail(Failure.CUT, str(exc or "closed within the answer"))
        self._wake()
        self._parser = None  # type: ignore[assignment]  # it holds this object

    # What the parser says

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("headers too large")
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._interim = True
            self.headers.clear()
            return
        self.status = status
        self.head_seen = True

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._buffered += len(body)

    def on_message_begin(self) -> None:
        if self.complete:  # an answer to no request: the parser stops before it
            self._polluted = True
            raise ValueError("more than one answer")

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self.complete = True
            self._keep = bool(self._parser.should_keep_alive())  # known only at this moment

    # Inside

    def _ends_with_connection(self) -> bool:
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    def _fail(self, kind: Failure, detail: str) -> None:
        if self._error is None:
            self._error = UpstreamFailure(kind, detail)

    def _tapped(self) -> bool:
        waiter = self._waiter
        if self.tap is None or waiter is None or waiter.done() or self.complete or self._error:
            return False
        try:
            return self.tap()
        except Exception as error:  # the task's, which is not here to be told
            self._error = error
            return False

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _news(self) -> asyncio.Future[None]:
        """Done when anything has come."""
        waiter = self._waiter = self._loop.create_future()
        return waiter
