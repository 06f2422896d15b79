"""The ASGI types under short names, and the two look-ups that every class here needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


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


class ByPrefix:
    """Paths below a prefix to one app, all others to another."""

    def __init__(self, prefix: str, inside: App, outside: App) -> None:
        self._prefix = prefix
        self._inside = inside
        self._outside = outside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._inside if scope["path"].startswith(self._prefix) else self._outside
        await app(scope, receive, send)
