"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge.errors import ModelNotFound

from ..openai.models import card
from ..roster import Named
from ..stand import Stand
from .json import answer


class Listing(Protocol):
    """Who knows the models' cards."""

    def every(self) -> Sequence[Mapping[str, object]]: ...

    def one(self, name: str) -> Mapping[str, object] | None:
        """By its name or an alias."""
        ...


class OneModel:
    """The only one, with its adapters."""

    def __init__(self, stand: Stand, created: int) -> None:
        self._stand = stand
        self._created = created

    def every(self) -> Sequence[Mapping[str, object]]:
        return [self._card(named) for named in self._stand.roster.every()]

    def one(self, name: str) -> Mapping[str, object] | None:
        try:
            return self._card(self._stand.roster.find(name))
        except ModelNotFound:
            return None

    def _card(self, named: Named) -> Mapping[str, object]:
        loaded = self._stand.lifecycle.loaded
        return card(self._stand.config, named, loaded=loaded, created=self._created)


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
