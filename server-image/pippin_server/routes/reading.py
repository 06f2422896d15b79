"""What the completion routes do before they differ: body in, model checked, order out."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pippin_contract.serverconfig import ServerConfig
from pippin_edge import json_body
from pippin_edge.asgi import Receive, Scope, Send
from pippin_edge.errors import BadRequest, UnsupportedMedia

from ..answering import Answer, Kitchen, Order
from ..engines.base import Generator, Prompt
from ..openai.answers import Head, Kind
from ..openai.common import Body
from ..roster import Named, Roster


async def json_of(request: Request) -> bytes:
    """The body. Raises UnsupportedMedia when it says that it is something else."""
    kind = request.headers.get("content-type", "application/json")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMedia("send the body as JSON, with Content-Type: application/json")
    return await json_body.read(request.receive)


def add(routes: APIRouter, path: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
    """For POST. The framework's own kind of route would look for parameters, of which there are
    none, and pass every piece of an answer through one layer more."""
    routes.routes.append(Route(path, _Bare(answer), methods=["POST"]))


class _Bare:
    """A route's function as an app."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Desk:
    """Where requests are read, knowing what is served here."""

    config: ServerConfig
    roster: Roster

    async def raw_body(self, request: Request) -> bytes:
        return await json_of(request)

    def check_model(self, name: str) -> Named:
        return self.roster.find(name)


@dataclass(frozen=True, slots=True)
class Counter(Desk):
    """Where orders for an engine of ours are taken."""

    kitchen: Kitchen
    engine: Generator

    async def body(self, request: Request) -> dict[str, Any]:
        return json_body.parse(await self.raw_body(request))

    def answer(
        self, request: Request, kind: Kind, body: Body, prompts: tuple[Prompt, ...]
    ) -> Answer:
        named = self.check_model(body.model)
        if named.adapter:
            prompts = tuple(replace(prompt, adapter=named.adapter) for prompt in prompts)
        head = Head(
            kind=kind,
            number=f"{random.getrandbits(96):024x}",
            created=int(self.kitchen.clock.wall()),
            model=named.served,
            request_id=request.scope["state"]["request_id"],
        )
        order = Order(
            head=head,
            prompts=prompts,
            sampling=body.sampling(),
            stream=bool(body.stream),
            with_usage=body.wants_usage,
            choices=body.n or 1,
        )
        return Answer(self.kitchen, self.engine, order)

    def must_do(self, kind: Kind) -> None:
        """A model for another task has no answer to this."""
        if self.config.model.task not in ("chat", "completion"):
            raise BadRequest(f"this model does {self.config.model.task}, not {kind}", param="model")
