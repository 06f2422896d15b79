"""One request and its answer: ASGI's `receive`, its `send`, which is the cycle itself, and how an
answer's bytes are made.

Header names and values are not searched for line breaks: they are ours, or passed a parser that
allows none. The head leaves together with the first part of the body, in one system call.
"""

from __future__ import annotations

import asyncio
import http
from typing import Protocol

import structlog

from .asgi import App, Headers, Message, Scope

_PHRASES = {one.value: one.phrase for one in http.HTTPStatus}
STATUS_LINE = {
    code: f"HTTP/1.1 {code} {_PHRASES.get(code, '')}\r\n".encode() for code in range(100, 1000)
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Bytes of a body that may wait here before reading stops.
HIGH_WATER = 64 * 1024

_NO_BODY = (204, 304)
#: Headers that say how the answer's body ends.
_FRAMING = frozenset({b"content-length", b"connection", b"transfer-encoding"})
#: The scope of a request that is over.
_OVER: Scope = {}
log = structlog.get_logger("pippin.serving")


class Line(Protocol):
    """The connection that a request came on."""

    transport: asyncio.Transport
    #: Whether there is room for what is written; None: there is.
    writable: asyncio.Event | None

    def resume_reading(self) -> None: ...
    def answered(self, cycle: Cycle) -> None:
        """Its last byte was written."""

    def over(self, cycle: Cycle) -> None:
        """Its task ends."""


class Cycle:
    """Made when the headers are whole; `run` is its task."""

    __slots__ = (
        "_begun",
        "_chunked",
        "_expected",
        "_head",
        "_line",
        "_news",
        "_open_ended",
        "_parts",
        "_waiting",
        "complete",
        "expects_continue",
        "gone",
        "keep_alive",
        "scope",
        "size",
        "started",
        "task",
        "whole",
    )

    def __init__(
        self, line: Line, scope: Scope, *, keep_alive: bool, expects_continue: bool
    ) -> None:
        self._line = line
        self.scope = scope
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.task: asyncio.Task[None] | None = None
        #: The client hung up.
        self.gone = False
        # Of the request: what has come of the body and was not received, and whether that is all.
        self._parts: list[bytes] = []
        self.size = 0
        self.whole = False
        self._news = False
        self._waiting: asyncio.Event | None = None
        # Of the answer.
        self.started = False
        self.complete = False
        self._head = b""
        #: None until it is known; then whether it has no length that was said.
        self._chunked: bool | None = None
        #: Of unknown length to HTTP/1.0, which knows no chunks: ends with the connection.
        self._open_ended = False
        self._expected = 0

    async def run(self, app: App) -> None:
        """The app, from the request to the end of the answer; a cut where that is not reached."""
        try:
            await app(self.scope, self.receive, self)
        except asyncio.CancelledError:  # the time to drain is over
            pass
        except Exception:
            log.exception("answer.broke_off")
        finally:
            if not self.complete:
                self._line.transport.close()
            # What layers keep of it in its scope refers to this object: left like that, each
            # request's memory would wait for the garbage collector, and the next one's be cold.
            self.scope = _OVER
            self._line.over(self)

    # What comes

    def feed(self, part: bytes) -> None:
        """A part of the body."""
        self._parts.append(part)
        self.size += len(part)
        self.tell()

    def tell(self) -> None:
        """There is something to receive."""
        self._news = True
        if self._waiting is not None:
            self._waiting.set()

    async def receive(self) -> Message:
        """ASGI's."""
        if self.expects_continue:
            self.expects_continue = False
            self._line.transport.write(CONTINUE)
        if not (self._news or self.gone or self.complete):
            self._line.resume_reading()
            await self._wait()
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        self._news = False
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        self._line.resume_reading()
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    async def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = asyncio.Event()
        self._waiting.clear()
        await self._waiting.wait()

    # What goes

    async def __call__(self, message: Message) -> None:
        """ASGI's `send`; raises RuntimeError when the app breaks its order."""
        if self._line.writable is not None and not self.gone:
            await self._line.writable.wait()
        if self.gone:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.started and not self.complete:
            self._body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self.started:
            self._start(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"{kind} was sent out of order")

    def part(self, body: bytes) -> None:
        """As asgi.Sender has it."""
        if not self.gone:
            self._body(body, True)

    def _start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.expects_continue = closes = False
        lines = [STATUS_LINE[status]]
        for name, value in headers:
            if name in _FRAMING:
                if name == b"content-length":
                    self._expected = int(value)
                    self._chunked = False
                elif name == b"connection":
                    closes = value.lower() == b"close"
                else:
                    continue  # framing is made here
            lines += (name, b": ", value, b"\r\n")
        if self._chunked is None and status not in _NO_BODY:
            self._frame(lines)
        if closes or self._open_ended:
            self.keep_alive = False
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _frame(self, lines: list[bytes]) -> None:
        """Of an answer that did not say how long it is."""
        self._open_ended = self.scope["http_version"] == "1.0"
        self._chunked = not self._open_ended and self.scope["method"] != "HEAD"
        if self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")

    def _body(self, body: bytes, more: bool) -> None:
        data, self._head = self._head, b""
        if self._chunked:
            if body:
                data += b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                data += b"0\r\n\r\n"
        elif self.scope["method"] == "HEAD":
            self._expected = 0
        else:
            if not self._open_ended:
                self._expect(len(body))
            data += body
        if data:
            self._line.transport.write(data)
        if not more:
            self._end()

    def _expect(self, size: int) -> None:
        self._expected -= size
        if self._expected < 0:
            raise RuntimeError("the answer is longer than its Content-Length")

    def _end(self) -> None:
        if self._expected != 0:
            raise RuntimeError("the answer is shorter than its Content-Length")
        self.complete = True
        self.tell()
        self._line.answered(self)
