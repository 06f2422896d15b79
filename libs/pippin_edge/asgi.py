"""The ASGI types under short names, the two look-ups that every class here needs, and what they
know of an answer.

A class that is done when it calls the next one is no coroutine: it returns the next one's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol, cast

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Sender(Protocol):
    """What our own server and layers give an app as its `send`."""

    def __call__(self, message: Message) -> Awaitable[None]: ...
    def part(self, body: bytes) -> None:
        """More of a body that has begun and goes on, for a client that has room: no message, and
        nothing to wait for. An event of a stream passes all layers in one call each."""


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a lower-case header name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def state(scope: Scope) -> dict[str, Any]:
    """The request's own state; made when the ASGI server gave none."""
    found: dict[str, Any] = scope.setdefault("state", {})
    return found


class Answer:
    """A `send` that remembers, for all layers: made by the outermost one (RequestId), and found in
    `scope["state"]["answer"]`."""

    __slots__ = ("_send", "more_headers", "sent", "status")

    def __init__(self, send: Send, more_headers: Headers) -> None:
        self._send = cast(Sender, send)
        #: Go out with the head.
        self.more_headers = more_headers
        #: None until the answer begins.
        self.status: int | None = None
        #: Bytes of its body.
        self.sent = 0

    def part(self, body: bytes) -> None:
        """As Sender has it."""
        self.sent += len(body)
        self._send.part(body)

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        else:
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self.more_headers]
        return self._send(message)


class ByPrefix:
    """Paths below a prefix to one app, all others to another."""

    def __init__(self, prefix: str, inside: App, outside: App) -> None:
        self._prefix = prefix
        self._inside = inside
        self._outside = outside

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        app = self._inside if scope["path"].startswith(self._prefix) else self._outside
        return app(scope, receive, send)
