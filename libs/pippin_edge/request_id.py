"""One name for a request, from the client's header or made here, in every answer and log line."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextvars import ContextVar

from .asgi import App, Message, Receive, Scope, Send, header, state

HEADER = b"x-request-id"
#: The id of the request that the running task works on.
current: ContextVar[str] = ContextVar("pippin_request_id", default="")

_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")


def fresh() -> str:
    """A new id: unique, not secret, and cheap."""
    return f"req-{random.getrandbits(96):024x}"


class RequestId:
    """Stores the id in `scope["state"]["request_id"]` and in `current`; answers with it."""

    def __init__(self, app: App, new_id: Callable[[], str] = fresh) -> None:
        self.app = app
        self.new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = header(scope["headers"], HEADER)
        if given is not None and _ACCEPTED.match(given):
            request_id = given.decode("ascii")
        else:
            request_id = self.new_id()
            given = request_id.encode("ascii")
        state(scope)["request_id"] = request_id
        current.set(request_id)
        pair = (HEADER, given)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), pair]
            await send(message)

        await self.app(scope, receive, named)
