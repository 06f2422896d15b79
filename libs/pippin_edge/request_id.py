"""One name for a request, from the client's header or made here, in every answer and log line."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable

from .asgi import Answer, App, Receive, Scope, Send, header, state

HEADER = b"x-request-id"

_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")


def fresh() -> str:
    """A new id: unique, not secret, and cheap."""
    return f"req-{random.getrandbits(96):024x}"


class RequestId:
    """Stores the id in `scope["state"]["request_id"]`; answers with it. Outermost: it makes the
    Answer too, which all others look at."""

    def __init__(self, app: App, new_id: Callable[[], str] = fresh) -> None:
        self.app = app
        self.new_id = new_id

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        given = header(scope["headers"], HEADER)
        if given is not None and _ACCEPTED.match(given):
            request_id = given.decode("ascii")
        else:
            request_id = self.new_id()
            given = request_id.encode("ascii")
        bound = state(scope)
        bound["request_id"] = request_id
        bound["log"] = {}
        answer = bound["answer"] = Answer(send, [(HEADER, given)])
        return self.app(scope, receive, answer)
