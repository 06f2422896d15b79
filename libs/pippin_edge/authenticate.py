"""Who is calling: a token from the header, turned into a principal before the body is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from .asgi import App, Receive, Scope, Send, state
from .errors import Unauthenticated


class Authenticate:
    """`scope["state"]["principal"] = verify(token)`; `verify` raises errors.Unauthenticated.

    Takes `Authorization: Bearer` or `X-API-Key`, never a query or a cookie. Raises, so an
    ErrorEnvelope must stand around it. `public_paths` need no token and get no principal.
    `name_of(principal)` is what the access line may say of the caller.
    """

    def __init__(
        self,
        app: App,
        verify: Callable[[str], Any],
        public_paths: Iterable[str] = (),
        *,
        name_of: Callable[[Any], str] | None = None,
    ) -> None:
        self.app = app
        self.verify = verify
        self.public_paths = frozenset(public_paths)
        self.name_of = name_of

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"] not in self.public_paths:
            bound = state(scope)
            principal = bound["principal"] = self.verify(token(scope["headers"]))
            if self.name_of is not None:
                bound.setdefault("log", {})["key"] = self.name_of(principal)
        return self.app(scope, receive, send)


def token(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The one token that the headers hold."""
    found: str | None = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            given = rest.strip() if scheme.lower() == "bearer" else ""
        elif name == b"x-api-key":
            given = value.decode("latin-1").strip()
        else:
            continue
        if found is not None and given != found:
            raise Unauthenticated("more than one key was sent: send one, in Authorization")
        found = given
    if not found:
        raise Unauthenticated(
            "no API key was sent: send it in the header 'Authorization: Bearer <key>'"
        )
    return found
