"""Pictures that a replica keeps for a while. Who has the name may have the picture: no key is
asked for, and a name that was not given out is answered as one that is over.
"""

from __future__ import annotations

import asyncio
import re

from pippin_contract.wire import PICTURES_PATH, REQUEST_ID_HEADER
from pippin_edge import errors
from pippin_edge.asgi import Receive, Scope, Send

from . import relay
from .attempt import Deps
from .call import judge
from .catalog.model import Model, Replica
from .routing.timeouts import Deadlines
from .upstream.client import Exchange, Request
from .upstream.failure import UpstreamFailure, told
from .upstream.guard import Guard

_NAME = r"[a-z0-9][a-z0-9.-]{0,252}"
_PATH = re.compile(
    f"{PICTURES_PATH}(?P<model>{_NAME}/{_NAME})/(?P<pod>{_NAME})/(?P<file>[\\w-]{{43}}\\.png)"
)
#: Whom the gateway's token speaks for: nobody's key.
_NOBODY = "pictures"


class Pictures:
    """GET below PICTURES_PATH."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        state["log"]["path"] = PICTURES_PATH  # the name is no word for logs
        if scope["method"] != "GET":
            raise errors.MethodNotAllowed(
                "pictures are for GET", extra_headers=[(b"allow", b"GET")]
            )
        model, replica, file = self._find(scope["path"])
        deps, connection = self._deps, state["connection"]
        with deps.ticker.guard() as guard:
            connection.on_gone = guard.client_gone
            try:
                if connection.transport.is_closing():
                    raise errors.ClientGone
                token = deps.tokens.token(model.ref, _NOBODY, batch=False)
                head = _head(replica, PICTURES_PATH + file, token, state["request_id"])
                await self._pass_on(replica, Request(head, b"", token), guard, send)
            finally:
                connection.on_gone = None

    def _find(self, path: str) -> tuple[Model, Replica, str]:
        asked = _PATH.fullmatch(path)
        model = self._deps.catalog().by_ref.get(asked["model"]) if asked else None
        if asked and model:
            for replica in model.replicas:
                if replica.pod == asked["pod"]:
                    return model, replica, asked["file"]
        raise errors.NotFound("there is no such picture, or not any more")

    async def _pass_on(self, replica: Replica, request: Request, guard: Guard, send: Send) -> None:
        deps = self._deps
        deadlines = Deadlines(deps.defaults, deps.clock(), False)
        exchange: Exchange | None = None
        try:
            exchange = await deps.client.send(replica, request, guard, deadlines)
            judge(exchange)
            await relay.whole(exchange, send, relay.passed(exchange))
        except asyncio.CancelledError as cancelled:
            late = guard.expired()
            if late is None:
                raise
            raise told(late) from cancelled
        except UpstreamFailure as failure:
            raise told(failure) from failure
        finally:
            if exchange is not None:
                exchange.close()


def _head(replica: Replica, path: str, token: str, request_id: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nhost: {replica.endpoint.authority}\r\n"
        f"authorization: Bearer {token}\r\n{REQUEST_ID_HEADER}: {request_id}\r\n\r\n"
    ).encode()
