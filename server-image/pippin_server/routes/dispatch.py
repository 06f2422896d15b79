"""The paths that models answer on, of a server with several: to the one that is named."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge import json_body, multipart
from pippin_edge.asgi import App, Message, Receive, Scope, Send

from ..caller import Caller
from . import reading
from .others import FORM_PATHS, JSON_PATHS
from .reading import json_of

#: What the framework has written into the scope, and writes again for the model's own routes.
_OURS = frozenset({"app", "router", "endpoint", "route", "path_params"})


class Models(Protocol):
    """Who has them."""

    def name_of(self, asked: str) -> str:
        """Of a name or an alias. Raises ModelNotFound."""
        ...

    def use(self, name: str, scope: Scope) -> AbstractAsyncContextManager[App]:
        """Its routes; it stays loaded inside. Raises ApiError."""
        ...


def router(models: Models) -> APIRouter:
    routes = APIRouter()

    async def asked(request: Request) -> Response:
        if request.url.path in FORM_PATHS:
            form = await multipart.read(request.scope, request.receive)
            name, body = form.text(form.only("model")), form.body
        else:
            body = await json_of(request)
            name = json_body.text(json_body.parse(body), "model")
        return Handed(models, models.name_of(name), body)

    for path in sorted(JSON_PATHS | FORM_PATHS):
        reading.add(routes, path, asked)
    return routes


class Handed(Response):
    """Run by the ASGI server, so that the model is in use until the last byte is out."""

    def __init__(self, models: Models, name: str, body: bytes) -> None:
        super().__init__()
        self._models = models
        self._name = name
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            async with Caller(scope):
                app = await stack.enter_async_context(self._models.use(self._name, scope))
            await app(_bare(scope), self._again(receive), send)

    def _again(self, receive: Receive) -> Receive:
        """The body, which has been read, once more."""
        body: bytes | None = self._body

        async def received() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            told, body = body, None
            return {"type": "http.request", "body": told, "more_body": False}

        return received


def _bare(scope: Scope) -> Scope:
    return {
        name: value
        for name, value in scope.items()
        if name not in _OURS and not name.startswith("fastapi")
    }
