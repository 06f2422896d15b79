"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_contract.serverconfig import ServerConfig
from pippin_edge.errors import ModelNotFound

from ..lifecycle import Lifecycle
from ..openai.models import card
from .json import answer


class Listing(Protocol):
    """Who knows the models' cards."""

    def every(self) -> Sequence[Mapping[str, object]]: ...

    def one(self, name: str) -> Mapping[str, object] | None:
        """By its name or an alias."""
        ...


class OneModel:
    """The only one."""

    def __init__(self, config: ServerConfig, lifecycle: Lifecycle, created: int) -> None:
        self._config = config
        self._lifecycle = lifecycle
        self._created = created

    def every(self) -> Sequence[Mapping[str, object]]:
        loaded = self._lifecycle.loaded
        length = loaded.context_length if loaded else None
        return [card(self._config, context_length=length, created=self._created)]

    def one(self, name: str) -> Mapping[str, object] | None:
        ours = name in (self._config.served_name, *self._config.aliases)
        return self.every()[0] if ours else None


def router(listing: Listing) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/models")
    async def every(request: Request) -> Response:
        return answer(request, {"object": "list", "data": listing.every()})

    @routes.get("/v1/models/{name:path}")
    async def one(request: Request, name: str) -> Response:
        found = listing.one(name)
        if found is None:
            raise ModelNotFound(
                f"the model '{name[:512]}' is not served here: ask /v1/models", param="model"
            )
        return answer(request, found)

    return routes
