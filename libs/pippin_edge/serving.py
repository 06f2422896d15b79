"""An ASGI app on a socket: uvicorn with httptools, hardened, and ended without losing a request.

What uvicorn leaves open is closed here: size and time of headers, refusals below ASGI (malformed
requests) in the envelope, and a drain that first says "not ready".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from . import errors
from .asgi import App
from .cycle import Cycle
from .request_id import HEADER, fresh

#: Bytes of request line and headers, and how many headers.
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 128
#: Seconds for a client to send its headers; an idle kept connection has longer.
HEADER_SECONDS = 10.0
#: Longer than the 60 s of common ingresses, so that they, not we, close idle connections.
KEEP_ALIVE_SECONDS = 75
#: Seconds for which a client may take nothing of an answer that waits for it.
WRITE_STALL_SECONDS = 60
#: What may still come of a body that was refused: a client that is cut while it sends does not
#: see the answer, so the rest is read and thrown away, but not for ever.
DISCARD_BYTES = 64 * 1024 * 1024
DISCARD_SECONDS = 10.0
LINGER_SECONDS = 2.0

BACKLOG = 4096

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds on headers and with our errors.

    `scope["state"]["connection"]` is this object: set its `on_gone` while a request waits, and it
    is called when the client hangs up. (A task that waits in receive() costs more than that.)
    `body_complete` says whether all of the running request's body has come.

    Content-Length with Transfer-Encoding, repeated lengths and bad chunks are refused by the
    parser (llhttp is strict); tests/wire holds it to that.
    """

    header_seconds: float = HEADER_SECONDS
    write_stall_seconds: float = WRITE_STALL_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.body_complete = False
        self._reading_headers = True
        self._headers_came = False
        self._partial_bytes = 0
        self._small = False
        self._begun = False
        self._refusal: errors.ApiError | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._discarded = 0
        self._refused = False
        self.on_gone: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(self.header_seconds, self._headers_late)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        self._stop_write_timer()
        self._stop_end_timer()
        super().connection_lost(exc)
        if self.on_gone is not None:
            self.on_gone()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        continued = self._reading_headers
        self._small = self._partial_bytes + len(data) < MAX_HEADER_BYTES
        self._headers_came = False
        if continued and b"pgrade" in data:
            data = _without_upgrade(data)
        super().data_received(data)
        if not self._reading_headers or self._refused or self.transport.is_closing():
            return
        # One long header stays inside the parser: count what went in, unless a whole request's
        # headers, and perhaps its body, were in it.
        if continued and not self._headers_came:
            self._partial_bytes += len(data)
            if self._partial_bytes > MAX_HEADER_BYTES:
                self._refuse(_headers_too_large())
                return
        if self._header_timer is None and self._begun:
            self._header_timer = self.loop.call_later(self.header_seconds, self._headers_late)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self
        self.body_complete = False
        self._reading_headers = self._begun = True

    def on_headers_complete(self) -> None:
        if len(self.headers) > MAX_HEADERS or not (self._small or self._header_bytes_fit()):
            self._refusal = _headers_too_large()
            raise ValueError("headers too large")  # the parser stops and calls send_400_response
        self._reading_headers = False
        self._headers_came = True
        self._partial_bytes = 0
        if self._header_timer is not None:
            self._stop_header_timer()
        super().on_headers_complete()
        self.cycle.__class__ = Cycle  # its task has not run yet

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > DISCARD_BYTES:
                self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._reading_headers and not self.transport.is_closing():
            self._end_timer = self.loop.call_later(DISCARD_SECONDS, self.transport.abort)

    def on_message_complete(self) -> None:
        self.body_complete = True
        self._stop_end_timer()
        super().on_message_complete()
        # What comes next on this connection are headers again; on_message_begin is not called
        # before their first byte, which is when their time begins to run.
        self._reading_headers = True
        self._partial_bytes = 0
        self._begun = False

    def send_400_response(self, msg: str) -> None:
        self._refuse(
            self._refusal or errors.BadRequest("the HTTP request is malformed: nothing was done")
        )

    def _unsupported_upgrade_warning(self) -> None:
        # Not caught by _without_upgrade: the parser has let go of the body and what follows.
        self._refused = True
        self.cycle.keep_alive = False

    def _header_bytes_fit(self) -> bool:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
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

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_end_timer(self) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _refuse(self, error: errors.ApiError) -> None:
        """Answer for a request that never reached the app, and end the connection."""
        self._refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or self._reading_headers:
                self.transport.close()  # whatever is written now would be taken for that answer
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(_whole_answer(error))
        self.transport.write_eof()
        self._end_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)


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


@dataclass(frozen=True, slots=True)
class Drain:
    """How a server ends. Seconds.

    `linger`: after `on_draining`, go on accepting so long, until everyone has seen "not ready".
    `timeout`: then wait so long for what runs, before it is cut.
    """

    linger: float = 1.0
    timeout: float = 60.0
    on_draining: Callable[[], object] = lambda: None


class _Server(uvicorn.Server):
    """Signals are the program's own: see stop_on_signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted sockets inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_STALL_SECONDS * 1000)
    return listener


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def serve(app: App, listener: socket.socket, stop: asyncio.Event, drain: Drain) -> None:
    """Serve until `stop` is set, then drain. The listener is closed at the end."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain.timeout)),
    )
    # It warns of every malformed request, and tells of its start and stop, which we do.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            drain.on_draining()
            await asyncio.sleep(drain.linger)
    finally:
        stopping.cancel()
        server.should_exit = True
        await running
