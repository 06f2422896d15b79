"""One HTTP exchange: bounded redirects, guarded addresses, credentials for one host only."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pippin_contract import __version__

from .base import Sign, unsigned
from .guard import Guard, Refused

MAX_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_AGENT = f"pippin-server/{__version__}"
#: Seconds to connect; much less than what a slow answer may take.
_CONNECT = 10.0


@cache
def _trusted() -> ssl.SSLContext:
    """Who the system trusts; SSL_CERT_FILE may say otherwise. It takes a while to read."""
    return ssl.create_default_context()


class Broken(Exception):
    """No answer, or half of one; another try may go better."""


class Answered(Exception):
    """An answer that is no success."""

    def __init__(self, answer: Answer, body: bytes) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.status = answer.status
        self.headers = answer.headers
        self.inside = answer.inside
        self.body = body

    @property
    def passing(self) -> bool:
        return self.status in (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `private`: see `Guard.connect`."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    sign: Sign = unsigned
    private: bool = False
    method: str = "GET"


class Answer:
    """Status, headers (names in lower case), and the body as it comes."""

    def __init__(self, response: http.client.HTTPResponse, inside: bool) -> None:
        self._response = response
        #: It came from a private address.
        self.inside = inside
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    @property
    def length(self) -> int | None:
        told = self.headers.get("content-length", "")
        return int(told) if told.isdecimal() else None

    def read(self, size: int) -> bytes:
        """Some bytes, or none at the end. Raises Broken when nothing comes for too long."""
        try:
            return self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise Broken(_words(error)) from error

    def all(self, most: int) -> bytes:
        """A small body. Raises Broken when it is cut off or larger than that."""
        found, length = bytearray(), self._response.length  # none after a HEAD
        while chunk := self.read(64 * 1024):
            found += chunk
            if len(found) > most:
                raise Broken(f"an answer of more than {most} bytes")
        if length is not None and len(found) != length:
            raise Broken(f"cut off after {len(found)} of {length} bytes")
        return bytes(found)


@dataclass(frozen=True, slots=True)
class Web:
    """`stall`: seconds without a byte after which an answer is given up."""

    guard: Guard
    stall: float = 30.0
    tls: Callable[[], ssl.SSLContext] = _trusted

    @contextmanager
    def open(self, request: Request) -> Iterator[Answer]:
        """The answer, after redirects. Raises Broken, Answered, Refused."""
        home = origin(request.url)
        url, private = request.url, request.private
        for _ in range(MAX_REDIRECTS + 1):
            with self._ask(request, url, home, private) as answer:
                location = answer.headers.get("location")
                if answer.status not in _MOVED or not location:
                    _settled(answer)
                    yield answer
                    return
            url, private = _next(url, location), private and answer.inside
        raise Refused(f"more than {MAX_REDIRECTS} redirects")

    @contextmanager
    def _ask(self, request: Request, url: str, home: str, private: bool) -> Iterator[Answer]:
        headers = {"user-agent": _AGENT, "accept-encoding": "identity", **request.headers}
        # A signature or a token is for the host that it was given for, and nobody else.
        if origin(url) == home:
            headers |= request.sign(url, headers)
        parts = urlsplit(url)
        connection = _Guarded(self, parts, private)
        try:
            try:
                connection.request(request.method, _target(parts), headers=headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise Broken(_words(error)) from error
            except ValueError:
                # The library would quote the credential or the address that it cannot send.
                raise Refused("an address or a credential holds what no request may") from None
            with response:
                yield Answer(response, connection.inside)
        finally:
            connection.close()


class _Guarded(http.client.HTTPConnection):
    """Connects through the guard."""

    def __init__(self, web: Web, parts: SplitResult, private: bool) -> None:
        secure = parts.scheme == "https"
        self.default_port = 443 if secure else 80  # else the Host header names it
        super().__init__(parts.hostname or "", parts.port or self.default_port)
        self._tls = web.tls() if secure else None
        self._web = web
        self._private = private
        self.inside = False

    def connect(self) -> None:
        found, self.inside = self._web.guard.connect(
            self.host, self.port, _CONNECT, private=self._private
        )
        found.settimeout(self._web.stall)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._tls.wrap_socket(found, server_hostname=self.host) if self._tls else found


def origin(url: str) -> str:
    """Scheme, host and port: those to whom a credential belongs."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _target(parts: SplitResult) -> str:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return quote(target, safe="%/:?#[]@!$&'()*+,;=~")


def _next(url: str, location: str) -> str:
    try:
        found = urljoin(url, location)
        origin(found)
    except ValueError as error:
        raise Refused("a redirect to something that is no web address") from error
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("a redirect to something that is no web address")
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        raise Refused(f"a redirect from https to plain http at {parts.hostname}")
    return found


def _settled(answer: Answer) -> None:
    if answer.status not in (200, 206):
        try:
            body = answer.all(64 * 1024)
        except Broken:
            body = b""
        raise Answered(answer, body)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no byte for too long"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, http.client.IncompleteRead):
        return "cut off"
    told: Any = getattr(error, "strerror", None)
    return str(told or type(error).__name__)
