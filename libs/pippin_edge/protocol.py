"""HTTP/1.1 on one connection: bytes to requests, each to the app, in turn. Parsed by httptools.

Bounded in every direction: size and time of headers, what is read ahead, what waits to be written,
what still comes of a body that was refused. What never reaches the app is refused in the envelope.
"""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from collections.abc import Callable
from typing import cast

import httptools

from . import errors
from .asgi import App, Headers, Scope
from .cycle import HIGH_WATER, STATUS_LINE, Cycle
from .request_id import HEADER, fresh

#: Bytes of request line and headers, and how many headers.
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 128
#: Seconds for a client to send its headers; an idle kept connection has longer.
HEADER_SECONDS = 10.0
#: Seconds for which a client may take nothing of an answer that waits for it.
WRITE_STALL_SECONDS = 60
#: What may still come of a body that was refused: a client that is cut while it sends does not
#: see the answer, so the rest is read and thrown away, but not for ever.
DISCARD_BYTES = 64 * 1024 * 1024
DISCARD_SECONDS = 10.0
LINGER_SECONDS = 2.0

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class House:
    """What the connections of one server share: the app, who is connected, and what runs."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.loop = asyncio.get_running_loop()
        self.connections: set[Protocol] = set()
        self.running: set[Cycle] = set()


class Protocol(asyncio.Protocol):
    """One connection.

    `scope["state"]["connection"]` is this object: set its `on_gone` while a request waits, and it
    is called when the client hangs up. (A task that waits in receive() costs more than that.)
    `body_complete` says whether all of the running request's body has come.

    Content-Length with Transfer-Encoding, repeated lengths and bad chunks are refused by the
    parser (llhttp is strict); tests/wire holds it to that.
    """

    __slots__ = (
        "_begun",
        "_client",
        "_cycle",
        "_discarded",
        "_end_timer",
        "_expects_continue",
        "_header_timer",
        "_headers",
        "_headers_came",
        "_house",
        "_loop",
        "_parser",
        "_partial_bytes",
        "_queue",
        "_reading_headers",
        "_reading_paused",
        "_refusal",
        "_refused",
        "_server",
        "_small",
        "_url",
        "_write_timer",
        "body_complete",
        "idle_since",
        "on_gone",
        "transport",
        "writable",
    )

    header_seconds: float = HEADER_SECONDS
    write_stall_seconds: float = WRITE_STALL_SECONDS

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = house.loop
        self._parser = httptools.HttpRequestParser(self)
        # Of what is sent behind a request that ends the connection nothing is read.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        self._cycle: Cycle | None = None
        #: Pipelined, which hardly anybody does.
        self._queue: list[Cycle] = []
        self._reading_paused = False
        #: Whether there is room for what is written; None: there always was.
        self.writable: asyncio.Event | None = None
        #: Since when nothing is asked (the loop's time); 0: something is.
        self.idle_since = 0.0
        self.on_gone: Callable[[], object] | None = None
        self.body_complete = False
        self._url = b""
        self._headers: Headers = []
        self._expects_continue = False
        self._reading_headers = True
        self._headers_came = False
        self._partial_bytes = 0
        self._small = False
        self._begun = False
        self._refusal: errors.ApiError | None = None
        self._refused = False
        self._discarded = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    # What the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        self._house.connections.add(self)
        self._header_timer = self._loop.call_later(self.header_seconds, self._headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.connections.discard(self)
        for timer in (self._header_timer, self._write_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        for cycle in (self._cycle, *self._queue):
            if cycle is not None and not cycle.complete:
                cycle.gone = True
                cycle.tell()
        if self.writable is not None:
            self.writable.set()
        if self.on_gone is not None:
            self.on_gone()
        self._queue.clear()
        self._parser = None  # type: ignore[assignment]  # it holds this object

    def pause_writing(self) -> None:
        self.writable = asyncio.Event()
        self._write_timer = self._loop.call_later(self.write_stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self.writable is not None:
            self.writable.set()
            self.writable = None

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        continued = self._reading_headers
        self._small = self._partial_bytes + len(data) < MAX_HEADER_BYTES
        self._headers_came = False
        if continued and b"pgrade" in data:
            data = _without_upgrade(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            malformed = errors.BadRequest("the HTTP request is malformed: nothing was done")
            self._refuse(self._refusal or malformed)
        except httptools.HttpParserUpgrade:
            # Not caught by _without_upgrade: the parser has let go of the body and what follows.
            self._refused = True
            if self._cycle is not None:
                self._cycle.keep_alive = False
        if self._reading_headers and not self._refused and not self.transport.is_closing():
            self._watch_headers(len(data) if continued and not self._headers_came else 0)

    def _watch_headers(self, more: int) -> None:
        """One long header stays inside the parser: count what went in, unless a whole request's
        headers, and perhaps its body, were in it."""
        self._partial_bytes += more
        if self._partial_bytes > MAX_HEADER_BYTES:
            self._refuse(_headers_too_large())
        elif self._begun and self._header_timer is None:
            self._header_timer = self._loop.call_later(self.header_seconds, self._headers_late)

    # What the parser says

    def on_message_begin(self) -> None:
        self.idle_since = 0.0
        self._url = b""
        self._headers = []
        self._expects_continue = False
        self.body_complete = False
        self._reading_headers = self._begun = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if len(self._headers) > MAX_HEADERS or not (self._small or self._header_bytes_fit()):
            self._refusal = _headers_too_large()
            raise ValueError("headers too large")  # the parser stops
        self._reading_headers = False
        self._headers_came = True
        self._partial_bytes = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        self._take(self._scope())

    def _scope(self) -> Scope:
        raw, _, query = self._url.partition(b"?")
        if not raw.startswith(b"/") or b"#" in self._url:
            parsed = httptools.parse_url(self._url)
            raw, query = parsed.path, parsed.query or b""
        path = raw.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": self._parser.get_http_version(),
            "method": self._parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": self._client,
            "server": self._server,
            "state": {"connection": self},
        }

    def _take(self, scope: Scope) -> None:
        before = self._cycle
        self._cycle = Cycle(
            self,
            scope,
            keep_alive=scope["http_version"] != "1.0" and self._parser.should_keep_alive(),
            expects_continue=self._expects_continue,
        )
        if before is None or before.complete:
            self._start(self._cycle)
        else:  # pipelined
            self.pause_reading()
            self._queue.append(self._cycle)

    def on_body(self, body: bytes) -> None:
        cycle = cast(Cycle, self._cycle)
        if not cycle.complete:
            cycle.feed(body)
            if cycle.size > HIGH_WATER:
                self.pause_reading()
            return
        self._discarded += len(body)
        if self._discarded > DISCARD_BYTES:
            self.transport.abort()

    def on_message_complete(self) -> None:
        self.body_complete = True
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        cycle = cast(Cycle, self._cycle)
        cycle.whole = True
        cycle.tell()
        # What comes next on this connection are headers again; on_message_begin is not called
        # before their first byte, which is when their time begins to run.
        self._reading_headers = True
        self._partial_bytes = 0
        self._begun = False

    # What a cycle says

    def answered(self, cycle: Cycle) -> None:
        if not cycle.keep_alive:
            self.transport.close()
        if self.transport.is_closing():
            return
        if self._queue:
            self._start(self._queue.pop(0))
        else:
            self.idle_since = self._loop.time()
        if not self._queue:
            self.resume_reading()
        if not self._reading_headers:
            self._end_timer = self._loop.call_later(DISCARD_SECONDS, self.transport.abort)

    def over(self, cycle: Cycle) -> None:
        self._house.running.discard(cycle)

    def pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and not self._queue:
            self._reading_paused = False
            self.transport.resume_reading()

    # What the server says

    def leave(self) -> None:
        """End when the running request is answered; now, if there is none."""
        if self._cycle is None or self._cycle.complete:
            self.transport.close()
            return
        self._cycle.keep_alive = False

    # Inside

    def _start(self, cycle: Cycle) -> None:
        self._house.running.add(cycle)
        cycle.task = self._loop.create_task(cycle.run(self._house.app))

    def _header_bytes_fit(self) -> bool:
        size = len(self._url) + sum(len(name) + len(value) for name, value in self._headers)
        return size <= MAX_HEADER_BYTES

    def _headers_late(self) -> None:
        self._header_timer = None
        if self.transport.is_closing():
            return
        if not self._begun:
            self.transport.close()
            return
        self._refuse(
            errors.RequestTimeout(
                f"the request's headers did not arrive within {self.header_seconds:g} s"
            )
        )

    def _refuse(self, error: errors.ApiError) -> None:
        """Answer for a request that never reached the app, and end the connection."""
        self._refused = True
        cycle = self._cycle
        if cycle is not None and not cycle.complete:
            if cycle.started or self._reading_headers:
                self.transport.close()  # whatever is written now would be taken for that answer
                return
            cycle.gone = True
            cycle.tell()
        self.transport.write(_whole_answer(error))
        self.transport.write_eof()
        self._end_timer = self._loop.call_later(LINGER_SECONDS, self.transport.abort)


def _address(found: object) -> tuple[str, int] | None:
    """Host and port; None of sockets that have none."""
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None


def _without_upgrade(data: bytes) -> bytes:
    """Ask for no other protocol, so that the offer (h2c, of Java's and curl's clients) is ignored
    as HTTP wants it; the parser would drop the request's body for it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrd:", head) + end + rest


def _headers_too_large() -> errors.ApiError:
    return errors.HeadersTooLarge(
        f"the request's headers are larger than {MAX_HEADER_BYTES} bytes or more than {MAX_HEADERS}"
    )


def _whole_answer(error: errors.ApiError) -> bytes:
    request_id = fresh()
    content = errors.body(error, request_id)
    lines = [
        STATUS_LINE[error.status].rstrip(),
        b"content-type: application/json",
        b"content-length: %d" % len(content),
        HEADER + b": " + request_id.encode(),
        b"connection: close",
        b"",
        content,
    ]
    return b"\r\n".join(lines)
