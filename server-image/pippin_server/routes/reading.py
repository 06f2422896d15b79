"""What the completion routes do before they differ: body in, model checked, order out."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_contract.serverconfig import ServerConfig
from pippin_edge import json_body
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
    """For POST. A bare route: of the framework's own each request would have its parameters looked
    for, of which there are none, for a fifth of what all layers above the engine take."""
    routes.add_route(path, answer, methods=["POST"])


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
