"""A web server that holds files, and fails in every way that a real one can; on loopback."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.threaded import serving

#: Answers a request by itself; True when it did.
Fault = Callable[["Handler"], bool]


@dataclass
class Files:
    """`contents` by path. Each request takes the next of `faults`, while there are any."""

    url: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    #: Faults that stay, by path.
    slow: dict[str, Fault] = field(default_factory=dict)
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    #: What a slow answer waits for, between two pieces.
    slowly: threading.Event = field(default_factory=threading.Event)

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("range") for method, _, headers in self.asked if method == "GET"]


@contextmanager
def files(
    handler: type[Handler] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Files]:
    state = Files()

    class Bound(handler or Handler):  # type: ignore[misc]
        files = state

    server = _Server(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    server.block_on_close = False
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with serving(server) as url:
        state.url = url.replace("http", "https") if tls is not None else url
        try:
            yield state
        finally:
            state.slowly.set()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Files with ETags and ranges."""

    protocol_version = "HTTP/1.1"
    files: Files

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.files.asked.append((self.command, self.path, headers))
        if self.files.faults and self.files.faults.pop(0)(self):
            return
        slow = self.files.slow.get(self.path)
        if slow is None or not slow(self):
            self.respond(headers)

    def respond(self, headers: Mapping[str, str]) -> None:
        content = self.files.contents.get(self.path.partition("?")[0])
        if content is None:
            return self.send(404, b"")
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        found = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if found is None or headers.get("if-range", etag) != etag:
            return self.send(200, content, {"ETag": etag, **self.files.headers})
        first = int(found[1])
        if first >= len(content):
            return self.send(416, b"")
        part = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}", "ETag": etag}
        self.send(206, content[first:], part)

    def send(
        self,
        status: int,
        content: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read states, not logs."""


def status(code: int) -> Fault:
    """An answer with this status and nothing else."""

    def fault(handler: Handler) -> bool:
        handler.send(code, b"")
        return True

    return fault


def cut_after(size: int, *, etag: bool = True) -> Fault:
    """A good answer that breaks off after so many bytes."""

    def fault(handler: Handler) -> bool:
        content = handler.files.contents[handler.path]
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if etag else {}
        handler.send(200, content[:size], headers, length=len(content))
        handler.wfile.flush()
        handler.close_connection = True
        return True

    return fault


def slow_after(size: int) -> Fault:
    """A good answer whose rest waits until the test lets it come."""

    def fault(handler: Handler) -> bool:
        content = handler.files.contents[handler.path]
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        handler.send(200, content[:size], {"ETag": etag}, length=len(content))
        handler.wfile.flush()
        handler.files.slowly.wait(30)
        handler.wfile.write(content[size:])
        return True

    return fault


def stall_after(size: int) -> Fault:
    """The same, but nothing is closed: no byte comes any more."""

    def fault(handler: Handler) -> bool:
        cut_after(size)(handler)
        handler.files.slowly.wait(30)
        return True

    return fault


def redirect(url: str) -> Fault:
    """To somewhere else."""

    def fault(handler: Handler) -> bool:
        handler.send(302, b"", {"Location": url})
        return True

    return fault


def nothing_wrong(handler: Handler) -> bool:
    """For a request in between."""
    return False
